package ingress_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"

	"penstock/internal/ingress"
	"penstock/internal/link"
)

// HTTP/2 ends at the ingress; replicas are spoken to in HTTP/1.1.
func TestHTTP2(t *testing.T) {
	f := serve(t, ingress.Config{})
	next, ended := make(chan struct{}), make(chan struct{}, 1)
	table := replicas(app(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			body, _ := io.ReadAll(r.Body)
			w.Header().Set(http.TrailerPrefix+"X-Sum", fmt.Sprint(len(body)))
			w.Write(body)
		case "/events":
			for i := range 5 {
				fmt.Fprintf(w, "data: %d\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
			<-r.Context().Done()
			ended <- struct{}{}
		case "/refuse":
			http.NewResponseController(w).EnableFullDuplex() // else it waits for the body
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, r.Proto)
		}
	}))
	table.Certificates = []link.Certificate{certificate(t, host)}
	f.Apply(table)
	client := clientTo(t, f.secure)
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	transport.ForceAttemptHTTP2 = true
	defer client.CloseIdleConnections()

	large := bytes.Repeat([]byte("x"), 3<<20)
	for _, body := range [][]byte{[]byte("small"), large} {
		resp, err := client.Post("https://"+host+"/echo", "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || !bytes.Equal(got, body) || err != nil {
			t.Errorf("got HTTP/%d, %d bytes, %v, want HTTP/2, %d bytes", resp.ProtoMajor, len(got), err, len(body))
		}
		if sum := resp.Trailer.Get("X-Sum"); sum != fmt.Sprint(len(body)) {
			t.Errorf("trailer: got %q, want %d", sum, len(body))
		}
	}

	resp, err := client.Get("https://" + host + "/events")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for i := range 5 {
		if line, err := lines.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: got %q, %v", i, line, err)
		}
		next <- struct{}{}
	}
	resp.Body.Close()
	receive(t, "the replica hears that the client left", ended)

	// An answer before the body's end leaves the connection to the other streams.
	in, out := io.Pipe()
	defer out.Close()
	resp, err = client.Post("https://"+host+"/refuse", "", in)
	if err == nil {
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		want(t, resp, string(got), 403, "HTTP/1.1")
	} else {
		t.Error(err)
	}
}
