// Mailbox is a queue and an external scaler that tells its length, on ports 8080 and 8081. A WebSocket at /echo gets back the
// bytes that it sends. Run as `mailbox take URL` it takes a
// message from the mailbox at URL, works for a while, and deletes the message.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock/internal/autoscale/external/externaltest"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "take" {
		if err := take(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	box := mailbox{scaler: externaltest.New(externaltest.Queue(0, 1))}
	calls := box.scaler.GRPC()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == "/echo" {
			echo(w)
			return
		}
		box.ServeHTTP(w, r)
	})
	ended := make(chan error)
	for _, address := range []string{":8080", ":8081"} {
		server := http.Server{Addr: address, Protocols: &protocols, Handler: handler}
		go func() { ended <- server.ListenAndServe() }()
	}
	log.Fatal(<-ended)
}

func take(url string) error {
	for _, step := range []string{"/take", "/delete"} {
		r, err := http.Get(url + step)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s %s", step, r.Status, text)
		if err := r.Body.Close(); err != nil {
			return err
		}
		if step == "/take" {
			time.Sleep(500 * time.Millisecond)
		}
	}
	return nil
}

// echo takes the connection over and sends back what arrives on it.
func echo(w http.ResponseWriter) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		return
	}
	_, _ = io.Copy(conn, buffered) // until the client ends it
}

// mailbox counts messages. Those that were taken count until they are deleted.
type mailbox struct {
	scaler *externaltest.Server

	mu                           sync.Mutex
	messages, taken, done, empty int
}

// ServeHTTP changes the mailbox as the path says, and answers with its numbers.
func (b *mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.URL.Path {
	case "/set":
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.messages = n
	case "/take":
		if b.taken >= b.messages {
			b.empty++
		} else {
			b.taken++
		}
	case "/delete":
		if b.taken > 0 {
			b.taken, b.messages, b.done = b.taken-1, b.messages-1, b.done+1
		}
	}
	b.scaler.Set(externaltest.Queue(int64(b.messages), 1))
	fmt.Fprintf(w, "messages %d, done %d, empty %d\n", b.messages, b.done, b.empty)
}
