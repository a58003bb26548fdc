package external

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// CallTimeout is how long a scaler has for one answer, including the connection to it.
	CallTimeout = 5 * time.Second
	// maxMessage is the largest message that is read. The names and numbers of a hundred metrics fit.
	maxMessage = 64 << 10
	maxHeader  = 16 << 10
	// connectAgain is the longest pause between two tries to connect. The calls in between fail at once.
	connectAgain = 10 * time.Second
	// maxValue is the largest value. KEDA passes values on in thousandths, as a whole number of 64 bits.
	maxValue = float64(math.MaxInt64) / 1000
)

// Config says where a scaler is and what it is asked.
type Config struct {
	Address string // host:port
	// TLS is nil for a connection without encryption.
	TLS *tls.Config
	Ref Ref
	// Dial connects to an address.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Client asks one scaler. It is safe for concurrent use.
type Client struct {
	ref  Ref
	conn *grpc.ClientConn
}

// New returns a client. It connects with the first call.
func New(c Config) (*Client, error) {
	security := insecure.NewCredentials()
	if c.TLS != nil {
		security = credentials.NewTLS(c.TLS)
	}
	// With this scheme the address goes to Dial as it is. gRPC's others also lead to files, or to servers that name servers.
	conn, err := grpc.NewClient("passthrough:///"+c.Address,
		grpc.WithTransportCredentials(security),
		grpc.WithContextDialer(c.Dial),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("penstock"),
		grpc.WithMaxHeaderListSize(maxHeader),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectAgain},
			MinConnectTimeout: CallTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.ForceCodecV2(codec{})),
	)
	if err != nil {
		return nil, clean(err)
	}
	return &Client{c.Ref, conn}, nil
}

// Close ends the connection and all calls.
func (c *Client) Close() error { return c.conn.Close() }

const service = "/externalscaler.ExternalScaler/"

func (c *Client) call(ctx context.Context, method string, request, response any) error {
	within, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	if err := c.conn.Invoke(within, service+method, request, response); err != nil {
		return explain(ctx, method, err)
	}
	return nil
}

// IsActive asks whether there is work.
func (c *Client) IsActive(ctx context.Context) (bool, error) {
	var got activity
	err := c.call(ctx, "IsActive", c.ref, &got)
	return got.active, err
}

// Measure is the value of a metric, and the value that each replica should have.
type Measure struct {
	Metric        string
	Value, Target float64
}

// Measure asks how much work there is. If the scaler has several metrics, the one that wants the most replicas is
// returned.
func (c *Client) Measure(ctx context.Context) (Measure, error) {
	var specs figures
	if err := c.call(ctx, "GetMetricSpec", c.ref, &specs); err != nil {
		return Measure{}, err
	}
	if len(specs) == 0 {
		return Measure{}, errors.New("GetMetricSpec: want a metric and its target, got none")
	}
	var most Measure
	for i, spec := range specs {
		m := Measure{Metric: spec.name, Target: spec.value()}
		if !(m.Target > 0) || m.Target > maxValue {
			return Measure{}, fmt.Errorf("GetMetricSpec: target of metric %s: want a number above 0 and up to %.3g, got %v", name(spec), maxValue, m.Target)
		}
		var values figures
		if err := c.call(ctx, "GetMetrics", metricsRequest{c.ref, spec.name}, &values); err != nil {
			return Measure{}, err
		}
		if len(values) == 0 {
			return Measure{}, fmt.Errorf("GetMetrics: metric %s: want a value, got none", name(spec))
		}
		for _, v := range values {
			if got := v.value(); !(got >= 0) || got > maxValue {
				return Measure{}, fmt.Errorf("GetMetrics: metric %s: want a value from 0 to %.3g, got %v", name(spec), maxValue, got)
			}
			m.Value += v.value() // as the Kubernetes autoscaler adds the values of one metric
		}
		if i == 0 || m.Value/m.Target > most.Value/most.Target {
			most = m
		}
	}
	return most, nil
}

func name(f figure) string { return fmt.Sprintf("%q", safe(f.name)) }

// A stream is read at this speed at most, so that a scaler that sends without end uses little of the machine. gRPC's
// flow control then makes the scaler wait.
const (
	maxPushes = 1000
	pushesPer = 100 * time.Millisecond
)

// Stream calls pushed with each activity that the scaler pushes. It returns when the stream ends, always with an error.
func (c *Client) Stream(ctx context.Context, pushed func(active bool)) error {
	const method = "StreamIsActive"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, service+method)
	if err == nil {
		err = stream.SendMsg(c.ref)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		return explain(ctx, method, err)
	}
	began, n := time.Now(), 0
	for {
		var got activity
		if err := stream.RecvMsg(&got); err != nil {
			return explain(ctx, method, err)
		}
		pushed(got.active)
		if n++; n < maxPushes {
			continue
		}
		pause := time.NewTimer(pushesPer - time.Since(began))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
		began, n = time.Now(), 0
	}
}

// explain returns an error that says what a scaler did. ctx is that of the caller.
func explain(ctx context.Context, method string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: the scaler has ended the stream", method)
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: no answer within %v", method, CallTimeout)
	case codes.Unimplemented:
		return fmt.Errorf("%s: the server does not implement KEDA's external scaler: %s", method, safe(s.Message()))
	case codes.Unavailable:
		return fmt.Errorf("%s: cannot be reached: %s", method, safe(s.Message()))
	}
	return fmt.Errorf("%s: %s: %s", method, s.Code(), safe(s.Message()))
}

func clean(err error) error { return errors.New(safe(err.Error())) }

// safe shortens a text of a scaler and removes what a terminal would not print.
func safe(s string) string {
	const most = 300
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "..."
	}
	return s
}
