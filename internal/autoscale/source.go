package autoscale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"sync"
	"time"

	"penstock/internal/autoscale/external"
	"penstock/internal/resource"
	"penstock/internal/scale"
)

const (
	// fastPolling is how often a source is asked with the fast behaviour, if pollingInterval is not shorter.
	fastPolling = 5 * time.Second
	// roundTimeout is how long one round of calls to a source can take.
	roundTimeout = 3 * external.CallTimeout
	// Pushes are passed on once in pushEvery at most, and make the value be read once in pushedReadEvery at most.
	pushEvery       = 100 * time.Millisecond
	pushedReadEvery = time.Second
	// A stream of pushes that has ended is opened again after firstStream, doubling up to lastStream. KEDA's numbers.
	firstStream = 2 * time.Second
	lastStream  = time.Minute
	// streamAge is how long a stream is kept before another replaces it. A replica of a scaler app that is to leave gets no
	// new streams, so it has drained after this time.
	streamAge = 30 * time.Second
)

var errAged = errors.New("the stream is replaced by another")

// sourceSpec describes what measures one rule. Sources with equal specs are the same.
type sourceSpec struct {
	owner       resource.ID // app or job, whose secrets the rule uses
	environment resource.ID
	name        string // revision or job
	rule        resource.ScaleRule
	env         []resource.EnvVar // of the first container, for metadata that ends with FromEnv
	push        bool
	// pollEvery is how often the source is asked for its activity and its value. readEvery is how often it is asked for
	// its value in addition, while the subject has replicas.
	pollEvery, readEvery time.Duration
	// readPushed is set if the value is read as soon as the source pushes its activity.
	readPushed bool
	window     scale.Window // of a cron rule; nil for others
	desired    float64      // of a cron rule
}

// measurement is what a source tells.
type measurement struct {
	began   time.Time // before the value was read
	reading scale.Reading
	read    bool // the value was read, and is not an earlier one
	pulse   bool // the source has been active since the previous measurement, maybe for a short time
}

// source measures one rule until its context ends.
type source struct {
	sourceSpec
	cfg   *Config
	awake func() bool // whether the subject has replicas
	tell  func(measurement)

	resolved resolved // what the connection was made for
	link     *sourceLink
	reading  scale.Reading
	// pushedUnread is set if the source has become active and its value was not read since.
	pushedUnread bool
}

// run asks the source until ctx ends. When it returns, its connection is closed.
func (s *source) run(ctx context.Context) {
	defer func() { s.link.close() }()
	pushed := newPushes()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var poll, read, lastRead, quiet time.Time // the zero times are due
	for {
		now := time.Now()
		switch {
		case !poll.After(now):
			s.round(ctx, pushed, true)
			poll, read, lastRead = now.Add(s.pollEvery), now.Add(s.readEvery), now
		case !read.After(now):
			if s.pushedUnread || s.awake() {
				s.round(ctx, pushed, false)
				lastRead = now
			}
			read = now.Add(s.readEvery)
		}
		if ctx.Err() != nil {
			return
		}
		next, news := sooner(poll, read), pushed.news
		if quiet.After(time.Now()) {
			next, news = sooner(next, quiet), nil
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-news:
			active, pulse := pushed.take()
			if active == s.reading.Active && (active || !pulse) {
				continue // nothing new
			}
			now := time.Now()
			s.reading.Active = active
			s.tell(measurement{began: now, reading: s.reading, pulse: pulse})
			quiet = now.Add(pushEvery)
			if s.readPushed && pulse {
				s.pushedUnread = true
				read = sooner(read, lastRead.Add(pushedReadEvery))
			}
		case <-ctx.Done():
			return
		}
	}
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// round reads the value, and the activity too if poll is set, and tells both.
func (s *source) round(ctx context.Context, pushed *pushes, poll bool) {
	within, cancel := context.WithTimeoutCause(ctx, roundTimeout, fmt.Errorf("no answer within %v", roundTimeout))
	defer cancel()
	began := time.Now()
	was := s.reading.Active
	s.pushedUnread = false
	reading, err := s.measure(within, ctx, pushed, poll)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		reading = scale.Reading{Active: was, Err: err.Error()}
	}
	s.reading = reading
	s.tell(measurement{began: began, reading: reading, read: true})
}

// measure asks the source. The connection, if it has to be made, lasts until ctx ends.
func (s *source) measure(within, ctx context.Context, pushed *pushes, poll bool) (r scale.Reading, err error) {
	if s.window != nil {
		return scale.Reading{Value: s.desired, Target: 1, Active: s.window.Active(time.Now())}, nil
	}
	if err := s.connect(within, ctx, pushed); err != nil {
		return r, err
	}
	if r.Active = s.reading.Active; poll {
		if r.Active, err = s.link.client.IsActive(within); err != nil {
			return r, err
		}
	}
	m, err := s.link.client.Measure(within)
	if err != nil {
		return r, err
	}
	r.Value, r.Target = m.Value, m.Target
	if err := s.link.broken(); err != nil {
		r.Note = fmt.Sprintf("pushes are not received: %v", err)
	}
	return r, nil
}

// connect makes a connection if there is none, or if the rule's secrets have changed.
func (s *source) connect(within, ctx context.Context, pushed *pushes) error {
	now, err := s.resolve(within)
	if err != nil {
		return err
	}
	if s.link != nil && reflect.DeepEqual(now, s.resolved) {
		return nil
	}
	s.link.close()
	s.link = nil
	security, err := now.tls(s.cfg.Roots)
	if err != nil {
		return err
	}
	client, err := external.New(external.Config{
		Address: now.address, TLS: security,
		Ref: external.Ref{Name: s.name, Namespace: s.environment.Base(), Metadata: now.metadata},
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return s.cfg.Dial(ctx, s.environment, address)
		},
	})
	if err != nil {
		return err
	}
	s.resolved = now
	s.link = &sourceLink{client: client}
	if s.push {
		streaming, stop := context.WithCancel(ctx)
		s.link.stop = stop
		s.link.streaming.Go(func() { s.link.stream(streaming, client, pushed) })
	}
	return nil
}

// sourceLink is a connection to a source and the goroutine that receives its pushes.
type sourceLink struct {
	client    *external.Client
	stop      context.CancelFunc // nil without a stream
	streaming sync.WaitGroup

	mu  sync.Mutex
	err error // why there is no stream
}

// close ends the stream and the connection. l can be nil.
func (l *sourceLink) close() {
	if l == nil {
		return
	}
	if l.stop != nil {
		l.stop()
	}
	_ = l.client.Close() // its only error says that it was closed
	l.streaming.Wait()
}

func (l *sourceLink) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *sourceLink) setBroken(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// stream receives pushes until ctx ends.
func (l *sourceLink) stream(ctx context.Context, client *external.Client, pushed *pushes) {
	wait := firstStream
	for {
		l.setBroken(nil)
		within, cancel := context.WithTimeoutCause(ctx, streamAge, errAged)
		err := client.Stream(within, func(active bool) {
			wait = 0
			pushed.add(active)
		})
		cancel()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAged) {
			continue
		}
		wait = max(wait, firstStream)
		l.setBroken(err)
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		wait = min(2*wait, lastStream)
	}
}

// pushes keeps what a source has pushed: the last activity, and whether it was active at any time since the last take.
// It takes the same memory however much is pushed.
type pushes struct {
	news chan struct{} // has an element when something was pushed

	mu            sync.Mutex
	active, pulse bool
}

func newPushes() *pushes { return &pushes{news: make(chan struct{}, 1)} }

func (p *pushes) add(active bool) {
	p.mu.Lock()
	p.active, p.pulse = active, p.pulse || active
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *pushes) take() (active, pulse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	active, pulse, p.pulse = p.active, p.pulse, false
	return active, pulse
}

// sources runs the sources that are wanted.
type sources struct {
	running map[string]runningSource
	all     sync.WaitGroup
}

type runningSource struct {
	spec sourceSpec
	stop context.CancelFunc
	done chan struct{}
}

// follow starts and stops sources so that those that are wanted run, until ctx ends.
func (s *Scaler) follow(ctx context.Context) {
	set := sources{running: map[string]runningSource{}}
	defer set.all.Wait()
	for {
		wanted := s.wantedSources()
		for key, r := range set.running {
			if spec, ok := wanted[key]; !ok || !reflect.DeepEqual(spec, r.spec) {
				r.stop()
				<-r.done
				delete(set.running, key)
			}
		}
		for key, spec := range wanted {
			if _, ok := set.running[key]; !ok {
				set.running[key] = s.start(ctx, &set, key, spec)
			}
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Scaler) start(ctx context.Context, set *sources, key string, spec sourceSpec) runningSource {
	ctx, stop := context.WithCancel(ctx)
	r := runningSource{spec, stop, make(chan struct{})}
	one := &source{
		sourceSpec: spec, cfg: &s.cfg,
		awake: func() bool { return s.hasReplicas(spec) },
		tell:  func(m measurement) { s.told(spec, m) },
	}
	set.all.Go(func() {
		defer close(r.done)
		defer stop()
		one.run(ctx)
	})
	return r
}

// hasSource says whether a rule is measured by a source.
func hasSource(rule scale.Rule) bool { return rule.Kind == scale.External }

// wantedSources returns the specs of all sources by a key of their own.
func (s *Scaler) wantedSources() map[string]sourceSpec {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]sourceSpec{}
	add := func(owner resource.ID, spec sourceSpec) {
		wanted[owner.Key()+" "+spec.rule.Name] = spec
	}
	for _, r := range s.revisions {
		for i, rule := range r.policy.Rules {
			if hasSource(rule) && i < len(r.rev.Template.Scale.Rules) {
				add(r.id, r.source(r.rev.Template.Scale.Rules[i]))
			}
		}
	}
	for _, j := range s.jobs {
		for _, rule := range j.job.Configuration.Scale.Rules {
			if spec, ok := j.source(rule); ok {
				add(j.job.ID, spec)
			}
		}
	}
	return wanted
}

// source returns the spec of the source of a rule.
func (r *revision) source(rule resource.ScaleRule) sourceSpec {
	spec := newSourceSpec(r.id.Parent(), r.rev.Environment, r.rev.Name(), r.rev.Template, rule)
	if spec.pollEvery = r.policy.Polling; spec.pollEvery <= 0 {
		spec.pollEvery = resource.DefaultPolling
	}
	spec.readEvery = min(scale.SyncEvery, spec.pollEvery)
	if r.policy.Behaviour != resource.Azure {
		spec.pollEvery = min(spec.pollEvery, fastPolling)
		spec.readEvery, spec.readPushed = spec.pollEvery, true
	}
	return spec
}

func newSourceSpec(owner, environment resource.ID, name string, t resource.Template, rule resource.ScaleRule) sourceSpec {
	spec := sourceSpec{owner: owner, environment: environment, name: name, rule: rule, push: rule.Custom.Type == resource.ExternalPush}
	if len(t.Containers) > 0 {
		spec.env = t.Containers[0].Env
	}
	return spec
}

// hasReplicas says whether the subject of a source has replicas, so that its value matters.
func (s *Scaler) hasReplicas(spec sourceSpec) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.revisions[spec.subject().Key()]
	return r != nil && r.wanted > 0
}

// subject returns the ID of the revision or job that a source measures for.
func (s sourceSpec) subject() resource.ID {
	if s.owner.Is(resource.TypeJob) {
		return s.owner
	}
	return s.owner.Child("revisions", s.name)
}

// failedAgain is the shortest time between two events about the same rule.
const failedAgain = 5 * time.Minute

// sourceState is the last measurement of a rule.
type sourceState struct {
	reading  scale.Reading
	began    time.Time
	pulse    bool      // active since the last decision
	unused   bool      // the value has not been used yet
	reported time.Time // when its failure was last an event
}

// take stores a measurement. It returns whether its failure is worth an event.
func (s *sourceState) take(m measurement, now time.Time) (report bool) {
	report = m.reading.Err != "" && s.reading.Err == "" && now.Sub(s.reported) >= failedAgain
	if report {
		s.reported = now
	}
	s.reading, s.began, s.pulse = m.reading, m.began, s.pulse || m.pulse
	s.unused = m.read && m.reading.Err == ""
	return report
}

// told stores what a source has measured.
func (s *Scaler) told(spec sourceSpec, m measurement) {
	now := time.Now()
	name, subject := spec.rule.Name, spec.subject()
	report, touch := false, false
	s.mu.Lock()
	if r := s.revisions[subject.Key()]; r != nil {
		if r.sources[name] == nil {
			r.sources[name] = &sourceState{}
		}
		report = r.sources[name].take(m, now)
		s.due(r, now)
	} else if j := s.jobs[subject.Key()]; j != nil {
		if j.sources[name] == nil {
			j.sources[name] = &sourceState{}
		}
		report = j.sources[name].take(m, now)
		touch = j.sources[name].unused && (m.reading.Active || j.job.Configuration.Scale.Min > 0)
	}
	s.mu.Unlock()
	if report {
		e := resource.Event{
			At: now.UTC(), Warning: true, App: spec.owner, Reason: "KEDAScalerFailed", Source: "KEDA",
			Message: fmt.Sprintf("Scale rule %q has no value, so it changes nothing: %s", name, m.reading.Err),
		}
		if !spec.owner.Is(resource.TypeJob) {
			e.Revision = subject.Base()
		}
		s.cfg.Emit(e)
	}
	if touch { // the pass asks for the demand
		s.cfg.Touch(spec.owner)
	}
}

// measurements returns all readings for a decision.
func (r *revision) measurements() map[string]scale.Reading {
	if len(r.sources) == 0 {
		return r.readings
	}
	all := make(map[string]scale.Reading, len(r.readings)+len(r.sources))
	maps.Copy(all, r.readings)
	for name, s := range r.sources {
		reading := s.reading
		reading.Active = reading.Active || s.pulse
		s.pulse = false
		all[name] = reading
	}
	return all
}
