// Package externaltest is an external scaler for tests. It speaks KEDA's protocol with the protobuf library and not
// with the codec of package external, so that a mistake of one is not hidden by the other.
package externaltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Server is an external scaler. Its fields can be changed with Set while it runs.
type Server struct {
	mu      sync.Mutex
	answers Answers
	changed chan struct{} // closed when answers change
	calls   map[string]int
	last    map[string]string // metadata of the last call
	streams int               // open streams
}

// Answers are what a Server answers.
type Answers struct {
	Active bool
	Specs  []Metric // of GetMetricSpec
	Values []Metric // of GetMetrics
	// Err fails all calls, and Hang lets them wait until the client gives up.
	Err  error
	Hang bool
	// Flood is how many pushes a stream sends at once, alternating and ending with Active.
	Flood int
}

// Metric is a MetricSpec or a MetricValue.
type Metric struct {
	Name  string
	Whole int64
	Exact float64
}

// Queue returns the answers of a scaler with a queue: its length, and how much of it each replica should have.
func Queue(length int64, target int64) Answers {
	return Answers{Active: length > 0, Specs: []Metric{{Name: "queue", Whole: target}}, Values: []Metric{{Name: "queue", Whole: length}}}
}

// New returns a server with these answers.
func New(a Answers) *Server {
	return &Server{answers: a, changed: make(chan struct{}), calls: map[string]int{}}
}

// Set changes the answers. Open streams push the new activity.
func (s *Server) Set(a Answers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = a
	close(s.changed)
	s.changed = make(chan struct{})
}

// Calls returns how often a method was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Metadata returns the metadata of the last call.
func (s *Server) Metadata() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.last)
}

// Streams returns the number of open streams.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// Serve serves connections from l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener, options ...grpc.ServerOption) error {
	server := s.GRPC(options...)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// GRPC returns a gRPC server that answers for s.
func (s *Server) GRPC(options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(options...)
	server.RegisterService(s.desc(), s)
	return server
}

const methods = "IsActive StreamIsActive GetMetricSpec GetMetrics"

func (s *Server) desc() *grpc.ServiceDesc {
	file := schema()
	methodOf := func(name string) protoreflect.MethodDescriptor {
		return file.Services().Get(0).Methods().ByName(protoreflect.Name(name))
	}
	d := &grpc.ServiceDesc{ServiceName: string(file.Services().Get(0).FullName()), HandlerType: (*any)(nil)}
	for name := range strings.FieldsSeq(methods) {
		m := methodOf(name)
		if m.IsStreamingServer() {
			d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: name, ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
				request := dynamicpb.NewMessage(m.Input())
				if err := stream.RecvMsg(request); err != nil {
					return err
				}
				return s.stream(m, request, stream)
			}})
			continue
		}
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := dynamicpb.NewMessage(m.Input())
			if err := decode(request); err != nil {
				return nil, err
			}
			return s.answer(ctx, m, request)
		}})
	}
	return d
}

// note counts a call and returns the current answers.
func (s *Server) note(m protoreflect.MethodDescriptor, request *dynamicpb.Message) (a Answers, changed <-chan struct{}) {
	ref := request.ProtoReflect()
	if inner := m.Input().Fields().ByName("scaledObjectRef"); inner != nil {
		ref = ref.Get(inner).Message()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[string(m.Name())]++
	s.last = map[string]string{}
	entries := ref.Get(ref.Descriptor().Fields().ByName("scalerMetadata")).Map()
	entries.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		s.last[k.String()] = v.String()
		return true
	})
	return s.answers, s.changed
}

func (s *Server) answer(ctx context.Context, m protoreflect.MethodDescriptor, request *dynamicpb.Message) (any, error) {
	a, _ := s.note(m, request)
	if a.Hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if a.Err != nil {
		return nil, a.Err
	}
	response := dynamicpb.NewMessage(m.Output())
	switch m.Name() {
	case "IsActive":
		setActive(response, a.Active)
	case "GetMetricSpec":
		add(response, "metricSpecs", "targetSize", a.Specs)
	case "GetMetrics":
		wanted := request.Get(m.Input().Fields().ByName("metricName")).String()
		add(response, "metricValues", "metricValue", slices.DeleteFunc(slices.Clone(a.Values), func(v Metric) bool { return v.Name != wanted }))
	default:
		return nil, fmt.Errorf("unknown method %s", m.Name())
	}
	return response, nil
}

func setActive(response *dynamicpb.Message, active bool) {
	response.Set(response.Descriptor().Fields().ByName("result"), protoreflect.ValueOfBool(active))
}

func add(response *dynamicpb.Message, list, number protoreflect.Name, metrics []Metric) {
	field := response.Descriptor().Fields().ByName(list)
	all := response.Mutable(field).List()
	for _, metric := range metrics {
		one := all.NewElement()
		of := field.Message().Fields()
		one.Message().Set(of.ByName("metricName"), protoreflect.ValueOfString(metric.Name))
		one.Message().Set(of.ByName(number), protoreflect.ValueOfInt64(metric.Whole))
		one.Message().Set(of.ByName(number+"Float"), protoreflect.ValueOfFloat64(metric.Exact))
		all.Append(one)
	}
}

// stream pushes the activity at once and at each change.
func (s *Server) stream(m protoreflect.MethodDescriptor, request *dynamicpb.Message, stream grpc.ServerStream) error {
	a, changed := s.note(m, request)
	s.mu.Lock()
	s.streams++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams--
	}()
	for {
		if a.Err != nil {
			return a.Err
		}
		for i := range max(a.Flood, 1) {
			response := dynamicpb.NewMessage(m.Output())
			setActive(response, a.Active == ((max(a.Flood, 1)-i)%2 == 1))
			if err := stream.SendMsg(response); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
		s.mu.Lock()
		a, changed = s.answers, s.changed
		s.mu.Unlock()
	}
}

// schema returns externalscaler.proto (github.com/kedacore/keda, pkg/scalers/externalscaler).
func schema() protoreflect.FileDescriptor {
	type field = descriptorpb.FieldDescriptorProto
	scalar := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type) *field {
		return &field{Name: &name, JsonName: &name, Number: &number, Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	}
	text := func(name string, number int32) *field {
		return scalar(name, number, descriptorpb.FieldDescriptorProto_TYPE_STRING)
	}
	message := func(name string, number int32, of string) *field {
		f := scalar(name, number, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
		f.TypeName = new(".externalscaler." + of)
		return f
	}
	list := func(f *field) *field {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		return f
	}
	number := func(name string, n int32) []*field {
		return []*field{scalar(name, n, descriptorpb.FieldDescriptorProto_TYPE_INT64), scalar(name+"Float", n+1, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE)}
	}
	define := func(name string, fields ...*field) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
	}
	method := func(name, in, out string, stream bool) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: &name, InputType: new(".externalscaler." + in), OutputType: new(".externalscaler." + out), ServerStreaming: &stream}
	}
	ref := define("ScaledObjectRef", text("name", 1), text("namespace", 2), list(message("scalerMetadata", 3, "ScaledObjectRef.ScalerMetadataEntry")))
	entry := define("ScalerMetadataEntry", text("key", 1), text("value", 2))
	entry.Options = &descriptorpb.MessageOptions{MapEntry: new(true)}
	ref.NestedType = []*descriptorpb.DescriptorProto{entry}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("externalscaler.proto"), Package: new("externalscaler"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			ref,
			define("IsActiveResponse", scalar("result", 1, descriptorpb.FieldDescriptorProto_TYPE_BOOL)),
			define("GetMetricSpecResponse", list(message("metricSpecs", 1, "MetricSpec"))),
			define("MetricSpec", slices.Concat([]*field{text("metricName", 1)}, number("targetSize", 2))...),
			define("GetMetricsRequest", message("scaledObjectRef", 1, "ScaledObjectRef"), text("metricName", 2)),
			define("GetMetricsResponse", list(message("metricValues", 1, "MetricValue"))),
			define("MetricValue", slices.Concat([]*field{text("metricName", 1)}, number("metricValue", 2))...),
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("ExternalScaler"), Method: []*descriptorpb.MethodDescriptorProto{
			method("IsActive", "ScaledObjectRef", "IsActiveResponse", false),
			method("StreamIsActive", "ScaledObjectRef", "IsActiveResponse", true),
			method("GetMetricSpec", "ScaledObjectRef", "GetMetricSpecResponse", false),
			method("GetMetrics", "GetMetricsRequest", "GetMetricsResponse", false),
		}}},
	}, nil)
	if err != nil {
		panic(err) // a constant
	}
	return file
}
