package resource_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock/internal/resource"
)

func valid() resource.App {
	return resource.App{
		Meta:          resource.Meta{ID: resource.AppID("s", "g", "chat")},
		Environment:   resource.EnvironmentID("s", "g", "e"),
		Configuration: resource.Configuration{Ingress: &resource.Ingress{TargetPort: 8080}},
		Template: resource.Template{
			Grace: 30 * time.Second,
			Scale: resource.Scale{Max: 10},
			Containers: []resource.Container{{
				Name: "chat", Image: "chat:1", Resources: resource.Resources{MilliCPU: 500, Memory: 1 << 30},
				Probes: []resource.Probe{{
					Type: resource.Readiness, HTTP: &resource.HTTPGet{Path: "/health", Port: 8080, Scheme: "HTTP"},
					Period: 10 * time.Second, Timeout: time.Second, FailureThreshold: 48, SuccessThreshold: 1,
				}},
			}},
		},
	}
}

func TestValidateApp(t *testing.T) {
	first := func(a *resource.App) *resource.Container { return &a.Template.Containers[0] }
	tests := map[string]struct {
		change func(*resource.App)
		field  string // "" when all is well
		says   string
	}{
		"a valid app":            {func(*resource.App) {}, "", ""},
		"a name of one letter":   {func(a *resource.App) { a.ID.Name = "c" }, "name", "2 to 32"},
		"a name of 33 letters":   {func(a *resource.App) { a.ID.Name = strings.Repeat("c", 33) }, "name", "2 to 32"},
		"a name with --":         {func(a *resource.App) { a.ID.Name = "a--b" }, "name", "single '-'"},
		"a name in capitals":     {func(a *resource.App) { a.ID.Name = "Chat" }, "name", "lower-case"},
		"no port":                {func(a *resource.App) { a.Configuration.Ingress.TargetPort = 0 }, "", ""},
		"port -1":                {func(a *resource.App) { a.Configuration.Ingress.TargetPort = -1 }, "configuration.ingress.targetPort", "or 0 to find out the port that the app listens on, got -1"},
		"port 65536":             {func(a *resource.App) { a.Configuration.Ingress.TargetPort = 65536 }, "configuration.ingress.targetPort", "got 65536"},
		"minReplicas below 0":    {func(a *resource.App) { a.Template.Scale.Min = -1 }, "template.scale.minReplicas", "want 0 to 1000, got -1"},
		"maxReplicas 0":          {func(a *resource.App) { a.Template.Scale.Max = 0 }, "template.scale.maxReplicas", "want 1 to 1000, got 0"},
		"maxReplicas above 1000": {func(a *resource.App) { a.Template.Scale.Max = 1001 }, "template.scale.maxReplicas", "got 1001"},
		"maxReplicas below min":  {func(a *resource.App) { a.Template.Scale.Min = 11 }, "template.scale.maxReplicas", "which is 11"},
		"a long grace":           {func(a *resource.App) { a.Template.Grace = 2 * time.Hour }, "template.terminationGracePeriodSeconds", "got 7200"},
		"an init container without an image": {func(a *resource.App) {
			a.Template.InitContainers = []resource.Container{{Name: "seed"}}
		}, "template.initContainers[0].image", "want the reference"},
		"an init container by a taken name": {func(a *resource.App) {
			a.Template.InitContainers = []resource.Container{{Name: "chat", Image: "i"}}
		}, "template.initContainers[0].name", `"chat" is the name of containers[0] already`},
		"init containers that want more than a replica": {func(a *resource.App) {
			for _, name := range []string{"a", "b"} {
				a.Template.InitContainers = append(a.Template.InitContainers, resource.Container{Name: name, Image: "i", Resources: resource.Resources{MilliCPU: 2250, Memory: 1 << 30}})
			}
		}, "template.initContainers", "is 4.5; want at most 4.0"},
		"init containers that want more memory than a replica": {func(a *resource.App) {
			a.Template.InitContainers = []resource.Container{{Name: "a", Image: "i", Resources: resource.Resources{MilliCPU: 250, Memory: 9 << 30}}}
		}, "template.initContainers", "is 9.0Gi; want at most 8.0Gi"},
		"the longest argument": {func(a *resource.App) { first(a).Args = []string{strings.Repeat("x", 128<<10-1)} }, "", ""},
		"a longer argument":    {func(a *resource.App) { first(a).Args = []string{strings.Repeat("x", 128<<10)} }, "template.containers[0].args[0]", "want at most 131071 bytes"},
		"a long command":       {func(a *resource.App) { first(a).Command = []string{"a", strings.Repeat("x", 200_000)} }, "template.containers[0].command[1]", "got 200000"},
		"the longest variable": {func(a *resource.App) {
			first(a).Env = []resource.EnvVar{{Name: "KEY", Value: strings.Repeat("x", 128<<10-5)}}
		}, "", ""},
		"a longer variable": {func(a *resource.App) {
			first(a).Env = []resource.EnvVar{{Name: "KEY", Value: strings.Repeat("x", 128<<10-4)}}
		},
			"template.containers[0].env[0].value", `with the name and '=' of "KEY"`},
		"a variable that grows": {func(a *resource.App) {
			first(a).Env = []resource.EnvVar{{Name: "K", Value: strings.Repeat("x", 100_000)}, {Name: "L", Value: "$(K)$(K)"}}
		}, "template.containers[0].env[1].value", "got more with the values of the variables in it"},
		"a word that grows": {func(a *resource.App) {
			first(a).Env, first(a).Args = []resource.EnvVar{{Name: "K", Value: strings.Repeat("x", 100_000)}}, []string{"$(K)$$$(K)"}
		}, "template.containers[0].args[0]", "got more with the values of the variables in it"},
		"many long variables": {func(a *resource.App) {
			for i := range 11 {
				first(a).Env = append(first(a).Env, resource.EnvVar{Name: fmt.Sprint("K", i), Value: strings.Repeat("x", 100_000)})
			}
		}, "template.containers[0]", "together, got 1100133"},
		"an init container outside the sum": {func(a *resource.App) {
			a.Template.InitContainers = []resource.Container{{Name: "seed", Image: "i", Resources: resource.Resources{MilliCPU: 2000, Memory: 1 << 20}}}
		}, "", ""},
		"a volume by a bad name": {func(a *resource.App) {
			a.Template.Volumes = []resource.Volume{{Name: "../etc"}}
		}, "template.volumes[0].name", "lower-case"},
		"a volume by a taken name": {func(a *resource.App) {
			a.Template.Volumes = []resource.Volume{{Name: "v"}, {Name: "v"}}
		}, "template.volumes[1].name", `"v" is the name of volumes[0] already`},
		"a mount of an init container": {func(a *resource.App) {
			a.Template.InitContainers = []resource.Container{{Name: "seed", Image: "i", Mounts: []resource.VolumeMount{{Volume: "none", Path: "/m"}}}}
		}, "template.initContainers[0].volumeMounts[0].volumeName", "want the name of one of template.volumes"},
		"no containers":             {func(a *resource.App) { a.Template.Containers = nil }, "template.containers", "at least one"},
		"no image":                  {func(a *resource.App) { first(a).Image = "" }, "template.containers[0].image", "want the reference"},
		"an image with a space":     {func(a *resource.App) { first(a).Image = "a b" }, "template.containers[0].image", "want the reference"},
		"a bad container name":      {func(a *resource.App) { first(a).Name = "Chat" }, "template.containers[0].name", "63"},
		"a variable without a name": {func(a *resource.App) { first(a).Env = []resource.EnvVar{{Name: ""}} }, "template.containers[0].env[0].name", "letters"},
		"a variable set twice":      {func(a *resource.App) { first(a).Env = []resource.EnvVar{{Name: "A"}, {Name: "A"}} }, "template.containers[0].env[1].name", "twice"},
		"a NUL in a variable":       {func(a *resource.App) { first(a).Env = []resource.EnvVar{{Name: "A", Value: "\x00"}} }, "template.containers[0].env[0].value", "NUL"},
		"a NUL in a command":        {func(a *resource.App) { first(a).Command = []string{"a", "\x00"} }, "template.containers[0].command[1]", "NUL"},
		"a NUL in an argument":      {func(a *resource.App) { first(a).Args = []string{"\x00"} }, "template.containers[0].args[0]", "NUL"},
		"a probe of two kinds":      {func(a *resource.App) { first(a).Probes[0].TCP = &resource.TCPSocket{Port: 1} }, "template.containers[0].probes[0]", "got both"},
		"a probe of no kind":        {func(a *resource.App) { first(a).Probes[0].HTTP = nil }, "template.containers[0].probes[0]", "got neither"},
		"a probe's port":            {func(a *resource.App) { first(a).Probes[0].HTTP.Port = 65536 }, "template.containers[0].probes[0].httpGet.port", "got 65536"},
		"a probe's path":            {func(a *resource.App) { first(a).Probes[0].HTTP.Path = "http://a/health" }, "template.containers[0].probes[0].httpGet.path", "such as /health"},
		"a probe's host":            {func(a *resource.App) { first(a).Probes[0].HTTP.Host = "a/b" }, "template.containers[0].probes[0].httpGet.host", "host name"},
		"a probe's header": {func(a *resource.App) {
			first(a).Probes[0].HTTP.Headers = []resource.Header{{Name: "A", Value: "b\r\nc"}}
		}, "template.containers[0].probes[0].httpGet.httpHeaders[0]", "header"},
		"a probe's period":  {func(a *resource.App) { first(a).Probes[0].Period = 0 }, "template.containers[0].probes[0].periodSeconds", "1 to 240"},
		"a probe's timeout": {func(a *resource.App) { first(a).Probes[0].Timeout = 241 * time.Second }, "template.containers[0].probes[0].timeoutSeconds", "1 to 240"},
		"a probe's delay":   {func(a *resource.App) { first(a).Probes[0].InitialDelay = 61 * time.Second }, "template.containers[0].probes[0].initialDelaySeconds", "0 to 60"},
		"a probe's grace":   {func(a *resource.App) { first(a).Probes[0].Grace = 2 * time.Hour }, "template.containers[0].probes[0].terminationGracePeriodSeconds", "3600"},
		"a liveness probe that wants two successes": {func(a *resource.App) {
			first(a).Probes[0].Type, first(a).Probes[0].SuccessThreshold = resource.Liveness, 2
		}, "template.containers[0].probes[0].successThreshold", "want 1"},
		"two probes of a type": {func(a *resource.App) {
			first(a).Probes = append(first(a).Probes, first(a).Probes[0])
		}, "template.containers[0].probes[1].type", "at most one Readiness"},
		"a TCP probe's port": {func(a *resource.App) {
			first(a).Probes[0].HTTP, first(a).Probes[0].TCP = nil, &resource.TCPSocket{Port: 65536}
		}, "template.containers[0].probes[0].tcpSocket.port", "want 1 to 65535"},
		"an address as a host": {func(a *resource.App) { first(a).Probes[0].HTTP.Host = "::1" }, "", ""},
		"two containers of a name": {func(a *resource.App) {
			a.Template.Containers = append(a.Template.Containers, resource.Container{Name: "chat", Image: "i", Resources: resource.Resources{MilliCPU: 250, Memory: 1 << 29}})
		}, "template.containers[1].name", "containers[0]"},
		"names that differ in capitals": {func(a *resource.App) {
			a.Template.InitContainers = []resource.Container{{Name: "CHAT", Image: "chat:1", Resources: first(a).Resources}}
		}, "template.initContainers[0].name", "is the name of containers[0] already"},
		"a suffix with a capital": {func(a *resource.App) { a.Template.RevisionSuffix = "V1" }, "template.revisionSuffix", "not well formed"},
		"a suffix with --":        {func(a *resource.App) { a.Template.RevisionSuffix = "a--b" }, "template.revisionSuffix", "not well formed"},
		"a suffix like a number":  {func(a *resource.App) { a.Template.RevisionSuffix = "0000001" }, "template.revisionSuffix", "starting with a letter"},
		"a name of 54 characters": {func(a *resource.App) { a.Template.RevisionSuffix = strings.Repeat("v", 48) }, "", ""},
		"a name of 69 characters": {func(a *resource.App) { a.Template.RevisionSuffix = strings.Repeat("v", 63) }, "template.revisionSuffix", "has 69 characters"},
		"too many tags": {func(a *resource.App) {
			a.Tags = map[string]string{}
			for i := range 51 {
				a.Tags[fmt.Sprint(i)] = ""
			}
		}, "tags", "at most 50"},
		"a tag with a bad name":   {func(a *resource.App) { a.Tags = map[string]string{"a/b": ""} }, "tags.a/b", "without"},
		"a tag with a long value": {func(a *resource.App) { a.Tags = map[string]string{"a": strings.Repeat("v", 257)} }, "tags.a", "got 257"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			test.change(&a)
			faults := resource.ValidateApp(a)
			if test.field == "" {
				if len(faults) > 0 {
					t.Fatalf("got %v, want none", faults)
				}
				return
			}
			if len(faults) != 1 {
				t.Fatalf("got %v, want one fault", faults)
			}
			if faults[0].Field != test.field || !strings.Contains(faults[0].Message, test.says) || faults[0].Code == "" {
				t.Errorf("got %s %+v, want %s that says %q", faults[0].Code, faults[0], test.field, test.says)
			}
		})
	}
}

func TestResourceTotals(t *testing.T) {
	type size = resource.Resources
	tests := map[string]struct {
		sizes []size
		ok    bool
	}{
		"the smallest":                  {[]size{{250, 1 << 29}}, true},
		"the largest":                   {[]size{{4000, 8 << 30}}, true},
		"too much memory":               {[]size{{250, 4 << 30}}, false},
		"no step":                       {[]size{{300, 644245094}}, false},
		"above the largest":             {[]size{{4250, 17 << 29}}, false},
		"two that make a pair together": {[]size{{250, 1 << 29}, {750, 3 << 29}}, true},
		"two uneven ones":               {[]size{{100, 214748365}, {400, 858993459}}, true},
		"two that do not":               {[]size{{250, 1 << 29}, {100, 214748365}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			a.Template.Containers = nil
			for i, s := range test.sizes {
				a.Template.Containers = append(a.Template.Containers, resource.Container{Name: fmt.Sprintf("c%d", i), Image: "i", Resources: s})
			}
			faults := resource.ValidateApp(a)
			if (len(faults) == 0) != test.ok {
				t.Fatalf("got %v, want accepted %t", faults, test.ok)
			}
			if !test.ok && (faults[0].Code != "ContainerAppInvalidResourceTotal" || strings.Count(faults[0].Message, "[cpu: ") != 16) {
				t.Errorf("got %s %s, want all 16 pairs", faults[0].Code, faults[0].Message)
			}
		})
	}
}

func TestTemplatesAreEqual(t *testing.T) {
	a, b := valid().Template, valid().Template
	b.Containers[0].Env = []resource.EnvVar{}
	if !a.Equal(b) {
		t.Error("an empty list of variables makes another template")
	}
	b.Scale.ZeroMin, b.Containers[0].Stored = true, map[string]json.RawMessage{"imageType": json.RawMessage(`"ContainerImage"`)}
	if !a.Equal(b) || !b.Scale.ZeroMin || b.Containers[0].Stored == nil {
		t.Error("defaults that are written make another template, or are lost")
	}
	b.Containers[0].Image = "chat:2"
	if a.Equal(b) {
		t.Error("another image makes no other template")
	}
}

func TestValidateMounts(t *testing.T) {
	tests := map[string]struct {
		mounts []resource.VolumeMount
		field  string // "" when all is well
	}{
		"plain":                  {[]resource.VolumeMount{{Volume: "v", Path: "/models"}}, ""},
		"below a link":           {[]resource.VolumeMount{{Volume: "v", Path: "/var/run/x", SubPath: "a/b.c"}}, ""},
		"shared memory":          {[]resource.VolumeMount{{Volume: "v", Path: "/dev/shm"}}, ""},
		"one in the other":       {[]resource.VolumeMount{{Volume: "v", Path: "/a/b"}, {Volume: "v", Path: "/a"}}, ""},
		"dots in a name":         {[]resource.VolumeMount{{Volume: "v", Path: "/a..b", SubPath: "..c"}}, ""},
		"no volume":              {[]resource.VolumeMount{{Volume: "w", Path: "/models"}}, "[0].volumeName"},
		"no path":                {[]resource.VolumeMount{{Volume: "v"}}, "[0].mountPath"},
		"no path from the root":  {[]resource.VolumeMount{{Volume: "v", Path: "models"}}, "[0].mountPath"},
		"the root":               {[]resource.VolumeMount{{Volume: "v", Path: "//"}}, "[0].mountPath"},
		"up and down":            {[]resource.VolumeMount{{Volume: "v", Path: "/a/../b"}}, "[0].mountPath"},
		"a colon":                {[]resource.VolumeMount{{Volume: "v", Path: "/a:ro"}}, "[0].mountPath"},
		"a NUL":                  {[]resource.VolumeMount{{Volume: "v", Path: "/a\x00b"}}, "[0].mountPath"},
		"the kernel's":           {[]resource.VolumeMount{{Volume: "v", Path: "/proc/sys"}}, "[0].mountPath"},
		"the kernel's, hidden":   {[]resource.VolumeMount{{Volume: "v", Path: "//./sys/"}}, "[0].mountPath"},
		"devices":                {[]resource.VolumeMount{{Volume: "v", Path: "/dev/fd"}}, "[0].mountPath"},
		"names of hosts":         {[]resource.VolumeMount{{Volume: "v", Path: "/etc/hosts"}}, "[0].mountPath"},
		"one path twice":         {[]resource.VolumeMount{{Volume: "v", Path: "/a"}, {Volume: "v", Path: "/a/"}}, "[1].mountPath"},
		"a way out":              {[]resource.VolumeMount{{Volume: "v", Path: "/a", SubPath: "../../etc"}}, "[0].subPath"},
		"a way out in between":   {[]resource.VolumeMount{{Volume: "v", Path: "/a", SubPath: "b/../../c"}}, "[0].subPath"},
		"the whole volume":       {[]resource.VolumeMount{{Volume: "v", Path: "/a", SubPath: "."}, {Volume: "v", Path: "/b", SubPath: "./"}}, ""},
		"a long part":            {[]resource.VolumeMount{{Volume: "v", Path: "/a/" + strings.Repeat("x", 256)}}, "[0].mountPath"},
		"a long part of a part":  {[]resource.VolumeMount{{Volume: "v", Path: "/a", SubPath: "b/" + strings.Repeat("x", 256)}}, "[0].subPath"},
		"EmptyDir over /etc":     {[]resource.VolumeMount{{Volume: "v", Path: "/etc"}}, ""},
		"secrets over /etc":      {[]resource.VolumeMount{{Volume: "s", Path: "/etc"}}, "[0].mountPath"},
		"secrets below /etc":     {[]resource.VolumeMount{{Volume: "s", Path: "/etc/keys"}}, ""},
		"a mount in secrets":     {[]resource.VolumeMount{{Volume: "v", Path: "/keys/v"}, {Volume: "s", Path: "/keys"}}, "[0].mountPath"},
		"secrets in a mount":     {[]resource.VolumeMount{{Volume: "v", Path: "/keys"}, {Volume: "s", Path: "/keys/s"}}, ""},
		"a sub path from a root": {[]resource.VolumeMount{{Volume: "v", Path: "/a", SubPath: "/etc"}}, "[0].subPath"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := valid()
			a.Template.Volumes = []resource.Volume{{Name: "v", Type: resource.EmptyDir}, {Name: "s", Type: resource.SecretFiles}}
			a.Template.Containers[0].Mounts = test.mounts
			faults := resource.ValidateApp(a)
			switch {
			case test.field == "" && len(faults) > 0:
				t.Errorf("got %v", faults)
			case test.field != "" && (len(faults) != 1 || faults[0].Field != "template.containers[0].volumeMounts"+test.field):
				t.Errorf("got %v, want one fault of %s", faults, test.field)
			case strings.HasSuffix(test.field, ".mountPath") && faults[0].Code != "ContainerAppInvalidMountPath",
				strings.HasSuffix(test.field, ".subPath") && faults[0].Code != "ContainerAppInvalidVolumeMount":
				t.Errorf("got the code %s for %s", faults[0].Code, test.field)
			}
		})
	}
}
