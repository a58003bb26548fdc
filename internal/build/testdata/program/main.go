// Command program does nothing. A test executes it in a RUN instruction.
package main

func main() {}
