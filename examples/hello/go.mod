module penstock/examples/hello

go 1.26.6
