package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"penstock/internal/atomicfile"
	"penstock/internal/cli"
)

// Config holds all settings of `penstock server`. Every setting has one name, used as a flag (--log-level), an environment
// variable (PENSTOCK_LOG_LEVEL) and a key of the config file (log-level). Flags override variables, which override the file.
type Config struct {
	Data    string // folder for everything that must survive a reboot
	Run     string // folder for sockets and pids
	Engines string // folder with the shim and runc

	HTTP  string // addresses of the listeners
	HTTPS string
	ARM   string
	TCP   string // host for the ports of TCP apps; empty: the host of HTTP

	Domain  string // parent of every app's host name
	Runtime string // "containerd" or "fake"

	LinkLocal bool // whether containers can reach link-local addresses beyond the machine

	Storages map[string]string // folder of each "environment/storage"

	MemoryReserve int64   // bytes of memory that are not available to containers
	DiskReserve   int64   // bytes that must be free on the data folder's disk to create a replica
	StandbyBudget int     // apps without replicas that have a standby
	Overcommit    float64 // factor on the remaining memory; above 1 only on test machines

	StayUp time.Duration // how long a new revision's containers without probes must run

	RegistryInsecure []string            // registries to reach over plain http
	RegistryMirrors  map[string][]string // mirrors of each registry
	RegistryCA       string              // file with certificates to trust in addition to the system's

	ImagesSuperseded time.Duration // how long images that lost their tag are kept
	ImagesUnused     time.Duration // how long pulled images are kept after their last use
	ImagesUnpacked   int64         // largest unpacked size of an image, in bytes
	ImagesLimit      int64         // bytes of all images above which such images are removed early; 0: no limit

	Drain     time.Duration // how long a replaced ingress may finish its requests
	StopLimit time.Duration // how long a stopping server waits for requests in flight

	LogLevel  slog.Level
	LogFormat string // "text" or "json"
}

// maxStayUp is less than what a client waits for.
const maxStayUp = 10 * time.Minute

// defaults returns the default settings. root decides the folder for sockets; exe is the path of this program.
func defaults(root bool, exe string) Config {
	run := "/run/penstock"
	if !root {
		run = filepath.Join(os.TempDir(), fmt.Sprintf("penstock-%d", os.Getuid()))
	}
	return Config{
		Data:             "/var/lib/penstock",
		Run:              run,
		Engines:          filepath.Dir(exe),
		HTTP:             "127.0.0.1:8080",
		HTTPS:            "127.0.0.1:8443",
		ARM:              "127.0.0.1:8444",
		Domain:           "penstock.localhost",
		Runtime:          "containerd",
		MemoryReserve:    1 << 30,
		DiskReserve:      2 << 30,
		Overcommit:       1,
		StandbyBudget:    32,
		StayUp:           3 * time.Second,
		ImagesSuperseded: time.Hour,
		ImagesUnpacked:   64 << 30,
		ImagesUnused:     7 * 24 * time.Hour,
		Drain:            30 * time.Minute,
		StopLimit:        30 * time.Second,
		LogLevel:         slog.LevelInfo,
		LogFormat:        "text",
	}
}

// setting describes one field of Config.
type setting struct {
	name  string
	usage string
	get   func(*Config) string
	set   func(*Config, string) error
}

func text(name, usage string, field func(*Config) *string) setting {
	return setting{name, usage,
		func(c *Config) string { return *field(c) },
		func(c *Config, s string) error { *field(c) = s; return nil }}
}

func folder(name, usage string, field func(*Config) *string) setting {
	s := text(name, usage, field)
	s.set = func(c *Config, v string) error {
		if v == "" {
			return errors.New(`want a folder, got ""`)
		}
		// Make the path absolute: the roles and a background server may have other working directories.
		abs, err := filepath.Abs(v)
		*field(c) = abs
		return err
	}
	return s
}

func duration(name, usage string, field func(*Config) *time.Duration) setting {
	return setting{name, usage,
		func(c *Config) string { return field(c).String() },
		func(c *Config, s string) (err error) {
			if *field(c), err = time.ParseDuration(s); err != nil {
				return fmt.Errorf("want a duration such as 30s or 5m, got %q", s)
			}
			return nil
		}}
}

// dataSetting is separate because every command needs it, not only the server.
var dataSetting = folder("data", "folder for all of the server's data", func(c *Config) *string { return &c.Data })

// maxStandbys bounds the number of standbys: each takes about 7 MB of memory and a shim process.
const maxStandbys = 10_000

func settings() []setting {
	return []setting{
		dataSetting,
		folder("run", "folder for sockets and pids", func(c *Config) *string { return &c.Run }),
		folder("engines", "folder with containerd-shim-runc-v2 and runc", func(c *Config) *string { return &c.Engines }),
		text("http", "address for http requests to apps", func(c *Config) *string { return &c.HTTP }),
		text("https", "address for https requests to apps", func(c *Config) *string { return &c.HTTPS }),
		text("arm", "address of the management API", func(c *Config) *string { return &c.ARM }),
		text("tcp", "host (without a port) for connections to TCP apps (default: the host of --http)", func(c *Config) *string { return &c.TCP }),
		text("domain", "parent domain of all apps' host names", func(c *Config) *string { return &c.Domain }),
		text("runtime", "engine that runs containers: containerd or fake", func(c *Config) *string { return &c.Runtime }),
		{"link-local", "whether containers can reach link-local addresses, such as the metadata service of a cloud's machine, which hands out its credentials: block or allow",
			func(c *Config) string { return map[bool]string{false: "block", true: "allow"}[c.LinkLocal] },
			func(c *Config, s string) error {
				if s != "block" && s != "allow" {
					return fmt.Errorf("want block or allow, got %q", s)
				}
				c.LinkLocal = s == "allow"
				return nil
			}},
		storagesSetting(),
		{"memory-reserve", "memory to keep free of containers, such as 1Gi",
			func(c *Config) string { return formatBytes(c.MemoryReserve) },
			func(c *Config, s string) (err error) { c.MemoryReserve, err = parseBytes(s); return err }},
		{"disk-reserve", "free disk space that the data folder must have before a new replica is created, such as 2Gi",
			func(c *Config) string { return formatBytes(c.DiskReserve) },
			func(c *Config, s string) (err error) { c.DiskReserve, err = parseBytes(s); return err }},
		{"overcommit", "factor on the memory that containers may be given; use more than 1 only on test machines",
			func(c *Config) string { return strconv.FormatFloat(c.Overcommit, 'g', -1, 64) },
			func(c *Config, s string) (err error) {
				if c.Overcommit, err = strconv.ParseFloat(s, 64); err != nil {
					return fmt.Errorf("want a number such as 1 or 1.5, got %q", s)
				}
				return nil
			}},
		{"standby-budget", "how many apps without replicas have a standby, those that were used last; 0: none",
			func(c *Config) string { return strconv.Itoa(c.StandbyBudget) },
			func(c *Config, s string) (err error) {
				if c.StandbyBudget, err = strconv.Atoi(s); err != nil {
					return fmt.Errorf("want a whole number such as 32, got %q", s)
				}
				return nil
			}},
		duration("stay-up", "how long the containers of a new revision that have no startup or readiness probe must run before it is ready", func(c *Config) *time.Duration { return &c.StayUp }),
		{"registry-insecure", "registries to reach over plain http, as HOST:PORT,HOST:PORT",
			func(c *Config) string { return strings.Join(c.RegistryInsecure, ",") },
			func(c *Config, s string) (err error) { c.RegistryInsecure, err = parseHosts(s); return err }},
		{"registry-mirrors", "mirrors to try before a registry, as docker.io=MIRROR[:PORT][/PREFIX],...",
			func(c *Config) string { return formatMirrors(c.RegistryMirrors) },
			func(c *Config, s string) (err error) { c.RegistryMirrors, err = parseMirrors(s); return err }},
		optionalFile("registry-ca", "file with CA certificates to trust for registries, in addition to the system's", func(c *Config) *string { return &c.RegistryCA }),
		duration("images-superseded", "how long to keep an unused image that lost its tag to a newer push", func(c *Config) *time.Duration { return &c.ImagesSuperseded }),
		duration("images-unused", "how long to keep a pulled image after a revision last needed it", func(c *Config) *time.Duration { return &c.ImagesUnused }),
		{"images-unpacked", "largest unpacked size of an image, such as 64Gi; the free disk space also limits it",
			func(c *Config) string { return formatBytes(c.ImagesUnpacked) },
			func(c *Config, s string) (err error) { c.ImagesUnpacked, err = parseBytes(s); return err }},
		{"images-limit", "disk usage of all images, such as 100Gi, above which such images are removed early; 0: no limit",
			func(c *Config) string { return formatBytes(c.ImagesLimit) },
			func(c *Config, s string) (err error) { c.ImagesLimit, err = parseBytes(s); return err }},
		duration("drain", "how long a replaced ingress may take to finish its requests", func(c *Config) *time.Duration { return &c.Drain }),
		duration("stop-limit", "how long a stopping server waits for requests in flight", func(c *Config) *time.Duration { return &c.StopLimit }),
		{"log-level", "debug, info, warn or error",
			func(c *Config) string { return strings.ToLower(c.LogLevel.String()) },
			func(c *Config, s string) error {
				if err := c.LogLevel.UnmarshalText([]byte(s)); err != nil {
					return fmt.Errorf("want debug, info, warn or error, got %q", s)
				}
				return nil
			}},
		text("log-format", "text or json", func(c *Config) *string { return &c.LogFormat }),
	}
}

// bindCommon and bindServer add the flags. load reads their values, so that it can report all faults at once.
func bindCommon(fs *pflag.FlagSet, d Config) {
	fs.String(dataSetting.name, dataSetting.get(&d), dataSetting.usage)
	fs.String("config", "", "YAML file with the server's settings")
}

func bindServer(fs *pflag.FlagSet, d Config) {
	for _, s := range settings() {
		if s.name != dataSetting.name {
			fs.String(s.name, s.get(&d), s.usage)
		}
	}
}

// load applies the data folder's settings, the config file, environment variables and flags to c. On an error c holds the
// values that were valid.
func load(c *Config, fs *pflag.FlagSet, getenv func(string) string) error {
	var faults []string
	read := func(what, path string) map[string]string {
		values, err := readSettings(path)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s %s: %v", what, path, err))
		}
		return values
	}
	// given returns the value that a flag or else a variable gives a setting.
	given := func(name string) (value, from string) {
		variable := "PENSTOCK_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if f := fs.Lookup(name); f != nil && f.Changed {
			return f.Value.String(), "--" + name
		}
		if v := getenv(variable); v != "" {
			return v, variable
		}
		return "", ""
	}
	kept := func(data string) map[string]string {
		path := filepath.Join(data, cli.SettingsFile)
		if _, err := os.Stat(path); err != nil {
			return nil
		}
		return read("settings", path)
	}
	data, _ := given(dataSetting.name)
	config, _ := given("config")
	if config == "" {
		config = kept(cmp.Or(data, c.Data))["config"]
	}
	var file map[string]string
	if config != "" {
		file = read("config", config)
	}
	last := kept(cmp.Or(data, file[dataSetting.name], c.Data))
	known := settings()
	for _, name := range slices.Sorted(maps.Keys(file)) {
		if !slices.ContainsFunc(known, func(s setting) bool { return s.name == name }) {
			names := make([]string, len(known))
			for i, s := range known {
				names[i] = s.name
			}
			faults = append(faults, fmt.Sprintf("config: unknown setting %q; want one of %s", name, strings.Join(names, ", ")))
		}
	}
	for _, s := range known {
		value, from := given(s.name)
		if v, ok := file[s.name]; ok && from == "" {
			value, from = v, "the config file"
		}
		if v, ok := last[s.name]; ok && from == "" {
			value, from = v, "the data folder's "+cli.SettingsFile
		}
		if from == "" {
			continue
		}
		if err := s.set(c, value); err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v (from %s)", s.name, err, from))
		}
	}
	return faultsError(faults)
}

// readSettings reads a YAML file of settings.
func readSettings(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseFile(b)
}

// keepFlags stores the flags of a start in the data folder, so that the next start has the same ports and domain. c has
// their values.
func keepFlags(c *Config, fs *pflag.FlagSet) error {
	path := filepath.Join(c.Data, cli.SettingsFile)
	kept, err := readSettings(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if kept == nil {
		kept = map[string]string{}
	}
	before := maps.Clone(kept)
	for _, s := range settings() {
		if f := fs.Lookup(s.name); f != nil && f.Changed && s.name != dataSetting.name {
			kept[s.name] = s.get(c)
		}
	}
	if f := fs.Lookup("config"); f != nil && f.Changed {
		if kept["config"], err = filepath.Abs(f.Value.String()); err != nil {
			return err
		}
	}
	if maps.Equal(before, kept) {
		return nil
	}
	b, err := yaml.Marshal(kept)
	if err != nil {
		return err
	}
	const head = "# Settings of the server on this data folder, from the flags of penstock up. Flags, variables and a config file override them.\n"
	return atomicfile.Write(path, append([]byte(head), b...), 0o644)
}

// Validate returns an error that lists every invalid value.
func (c *Config) Validate() error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	seen := map[string]string{}
	for _, l := range []struct{ name, address string }{{"http", c.HTTP}, {"https", c.HTTPS}, {"arm", c.ARM}} {
		_, port, err := net.SplitHostPort(l.address)
		n, convErr := strconv.ParseUint(port, 10, 16)
		if err != nil || convErr != nil {
			fault("%s: want ADDRESS:PORT such as 127.0.0.1:8080, got %q", l.name, l.address)
			continue
		}
		if other := seen[l.address]; other != "" && n != 0 {
			fault("%s: want an unused address, got %s, which %s uses", l.name, l.address, other)
		}
		seen[l.address] = l.name
	}
	if c.TCP != "" && c.TCP != "localhost" && net.ParseIP(c.TCP) == nil {
		fault("tcp: want an address without a port, such as 127.0.0.1, got %q; each app sets its own port", c.TCP)
	}
	if !validDomain(c.Domain) {
		fault("domain: want a host name such as penstock.localhost, got %q", c.Domain)
	}
	if c.Runtime != "containerd" && c.Runtime != "fake" {
		fault("runtime: want containerd or fake, got %q", c.Runtime)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Storages)) {
		if why := wrongStorage(c, c.Storages[name]); why != "" {
			fault("storages: %s: %s", name, why)
		}
	}
	if c.MemoryReserve < 0 {
		fault("memory-reserve: want 0 or more, got %s", formatBytes(c.MemoryReserve))
	}
	if c.DiskReserve < 0 {
		fault("disk-reserve: want 0 or more, got %s", formatBytes(c.DiskReserve))
	}
	if !(c.Overcommit > 0) || math.IsInf(c.Overcommit, 0) {
		fault("overcommit: want a number above 0, got %v", c.Overcommit)
	}
	if c.StandbyBudget < 0 || c.StandbyBudget > maxStandbys {
		fault("standby-budget: want 0 to %d, got %d", maxStandbys, c.StandbyBudget)
	}
	if c.StayUp < 0 || c.StayUp > maxStayUp {
		fault("stay-up: want a duration from 0 to %s, got %s", maxStayUp, c.StayUp)
	}
	if c.ImagesSuperseded < 0 {
		fault("images-superseded: want a duration of 0 or more, got %s", c.ImagesSuperseded)
	}
	if c.ImagesUnpacked <= 0 {
		fault("images-unpacked: want a size above 0, got %s", formatBytes(c.ImagesUnpacked))
	}
	if c.ImagesUnused < 0 {
		fault("images-unused: want a duration of 0 or more, got %s", c.ImagesUnused)
	}
	if c.Drain <= 0 {
		fault("drain: want a duration above 0, got %s", c.Drain)
	}
	if c.StopLimit <= 0 {
		fault("stop-limit: want a duration above 0, got %s", c.StopLimit)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		fault("log-format: want text or json, got %q", c.LogFormat)
	}
	return faultsError(faults)
}

// tcpHost returns the host on which the ports of TCP apps are opened.
func (c *Config) tcpHost() string {
	if c.TCP != "" {
		return c.TCP
	}
	return c.httpHost()
}

// httpHost returns the host of the http listener.
func (c *Config) httpHost() string {
	host, _, _ := net.SplitHostPort(c.HTTP) // Validate has checked it
	return host
}

// exposed returns the listeners that can be reached from other machines.
func (c *Config) exposed() []string {
	var names []string
	for _, l := range []struct{ name, address string }{
		{"http", c.HTTP}, {"https", c.HTTPS}, {"arm", c.ARM}, {"tcp", net.JoinHostPort(c.tcpHost(), "*")},
	} {
		host, _, _ := net.SplitHostPort(l.address)
		ip := net.ParseIP(host)
		if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			names = append(names, l.name+" "+l.address)
		}
	}
	return names
}

// faultsError returns an error with all faults, or nil if there are none.
func faultsError(faults []string) error {
	if len(faults) == 0 {
		return nil
	}
	return &configError{faults}
}

// configError lists everything that is wrong with the settings.
type configError struct{ faults []string }

func (e *configError) Error() string { return strings.Join(e.faults, "\n") }

// parseFile reads the settings of a YAML file as text, whatever their YAML type is.
func parseFile(b []byte) (map[string]string, error) {
	var nodes map[string]yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&nodes); err != nil {
		if len(bytes.TrimSpace(b)) == 0 {
			return nil, nil
		}
		return nil, err
	}
	values := make(map[string]string, len(nodes))
	for name, n := range nodes {
		if n.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: %s: want a single value", n.Line, name)
		}
		values[name] = n.Value
	}
	return values, nil
}

func validDomain(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

// units are the memory suffixes of Kubernetes and Container Apps.
var units = []struct {
	suffix string
	shift  int
}{{"Ki", 10}, {"Mi", 20}, {"Gi", 30}, {"Ti", 40}}

func parseBytes(s string) (int64, error) {
	digits, factor := s, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			digits, factor = rest, int64(1)<<u.shift
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("want bytes such as 512Mi or 1Gi, got %q", s)
	}
	return n * factor, nil
}

func formatBytes(n int64) string {
	for _, u := range slices.Backward(units) {
		if unit := int64(1) << u.shift; n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
