package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// patience is how long one of the machine's resolvers may take to respond. A replica's resolv.conf makes its clients ask
// twice, with a timeout of two seconds each.
const patience = 1900 * time.Millisecond

// FromFile returns a function that returns the resolvers in a resolv.conf(5) file. It reads the file again when it changes.
func FromFile(path string) func() ([]string, error) {
	var mu sync.Mutex
	var changed time.Time
	var servers []string
	return func() ([]string, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if info.ModTime().Equal(changed) {
			return servers, nil
		}
		c, err := dns.ClientConfigFromFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		servers = nil
		for _, s := range c.Servers {
			servers = append(servers, net.JoinHostPort(s, c.Port))
		}
		changed = info.ModTime()
		return servers, nil
	}
}

// forward sends a query to one server after another until one responds. The queries come from the machine's own network, so
// a server on its loopback works.
func forward(ctx context.Context, servers []string, q *dns.Msg, network string) (*dns.Msg, error) {
	errs := []error{errors.New("no resolver has an answer")}
	// The replica chose its query's ID. Use a random ID for the resolver, so that nobody can guess it.
	asked := q.Copy()
	asked.Id = dns.Id()
	client := &dns.Client{Net: network, Timeout: patience, UDPSize: uint16(room(q))}
	var failed *dns.Msg
	for _, server := range servers {
		answer, _, err := client.ExchangeContext(ctx, asked, server)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", server, err))
			continue
		}
		answer.Id = q.Id
		if answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused {
			return answer, nil
		}
		failed = answer
	}
	if failed != nil {
		return failed, nil
	}
	return nil, errors.Join(errs...)
}
