package app

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A manifest for another tool is answered with the lines of a manifest that correspond to it.

// foreign is what a file for another tool says of its first program. Zero values are not known.
type foreign struct {
	kind  string // "a Compose file"
	name  string
	image string
	port  int
	build bool // it has no image yet
	more  string
}

// Error says what the file is and what to write instead.
func (f foreign) Error() string {
	name, image, port := f.name, f.image, f.port
	if !appName.MatchString(name) || len(name) > 32 || name == "true" || name == "false" || name == "null" {
		name = "chat"
	}
	hint := ""
	if f.build {
		hint = fmt.Sprintf("; penstock build -t %s:1 FOLDER builds the image", name)
	}
	if image == "" || strings.ContainsAny(image, "\"\\\n{}$ ") {
		image = name + ":1"
	}
	if port < 1 || port > 65535 {
		port = 8080
	}
	return fmt.Sprintf(`this is %s%s. Want a container app; these three lines are one%s:
  name: %s
  properties: {configuration: {ingress: {external: true, targetPort: %d}}, template: {containers: [
    {name: %s, image: %q, resources: {cpu: 0.5, memory: 1Gi}}]}}`, f.kind, f.more, hint, name, port, name, image)
}

var appName = regexp.MustCompile(`^[a-z]([a-z0-9]|-[a-z0-9])+$`)

var (
	dockerfileLine = regexp.MustCompile(`^(?i:FROM)\s+(?:--\S+\s+)*([^\s=:][^\s=]*)(\s+(?i:AS)\s+\S+)?$`)
	exposeLine     = regexp.MustCompile(`(?im)^EXPOSE\s+([0-9]+)`)
	bicepLine      = regexp.MustCompile(`^(@\w+\(|targetScope\s*=|metadata\s+\w+\s*=|param\s+\w+\s+\w|var\s+\w+\s*=|import\s+'|module\s+\w+\s+'|resource\s+\w+\s+'[^']*@)`)
	terraformLine  = regexp.MustCompile(`^(terraform|provider\s+"[^"]+"|resource\s+"[^"]+"\s+"[^"]+"|variable\s+"[^"]+"|module\s+"[^"]+"|locals|data\s+"[^"]+"\s+"[^"]+")\s*\{`)
	tomlTable      = regexp.MustCompile(`^\[\[?\s*["A-Za-z0-9_.-]+\s*\]?\]\s*(#.*)?$`)
	tomlPair       = regexp.MustCompile(`^["A-Za-z0-9_.-]+\s*=\s*["'\[{0-9tf-]`)
	imageText      = regexp.MustCompile(`(?m)^\s*"?image"?\s*[=:]\s*["']([^"']+)["']`)
	nameText       = regexp.MustCompile(`(?m)^\s*"?(?:name|app)"?\s*[=:]\s*["']([^"']+)["']`)
	portText       = regexp.MustCompile(`(?m)^\s*"?(?:targetPort|target_port|internal_port|port)"?\s*[=:]\s*["']?([0-9]+)`)
)

// foreignText recognises a file that is not YAML by its first line that is not a comment. It returns nil for all others.
func foreignText(data []byte) error {
	first := ""
	for line := range strings.Lines(string(bytes.TrimPrefix(data, []byte("\ufeff")))) {
		line = strings.TrimSpace(line)
		argument := strings.HasPrefix(line, "ARG ") // the only instruction that may come before FROM
		if line != "" && line != "---" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "//") && !argument {
			first = line
			break
		}
	}
	text := string(data)
	say := func(kind string) foreign {
		f := foreign{kind: kind, name: find(nameText, text), image: find(imageText, text)}
		f.port, _ = strconv.Atoi(find(portText, text))
		return f
	}
	switch {
	case first == "":
		return foreign{kind: "an empty file"}
	case dockerfileLine.MatchString(first):
		port, _ := strconv.Atoi(find(exposeLine, text))
		return foreign{kind: "a Dockerfile", port: port, build: true}
	case bicepLine.MatchString(first):
		return say("a Bicep file")
	case terraformLine.MatchString(first):
		return say("a Terraform file")
	case tomlTable.MatchString(first), tomlPair.MatchString(first):
		return say("a TOML file")
	}
	return nil
}

func find(pattern *regexp.Regexp, text string) string {
	if m := pattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// foreignYAML recognises a document that is made for another tool by its fields. It returns nil for all others.
func foreignYAML(root *yaml.Node) error {
	if root.Kind != yaml.MappingNode || nodeAt(root, "properties") != nil {
		return nil
	}
	version, kind := valueAt(root, "apiVersion"), valueAt(root, "kind")
	switch {
	case version != "" && kind != "":
		f := foreign{kind: "a Kubernetes " + kind, name: valueAt(root, "metadata", "name")}
		if strings.HasPrefix(version, "serving.knative.dev/") {
			f.kind = "a Knative " + kind
		}
		for _, path := range [][]string{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}, {"spec"}} {
			if c := firstOf(nodeAt(root, append(path, "containers")...)); c != nil {
				f.image = valueAt(c, "image")
				f.port, _ = strconv.Atoi(valueAt(firstOf(nodeAt(c, "ports")), "containerPort"))
				return f
			}
		}
		f.more = ", which has no container"
		return f
	case nodeAt(root, "services") != nil:
		f := foreign{kind: "a Compose file"}
		if services := nodeAt(root, "services"); services.Kind == yaml.MappingNode && len(services.Content) > 1 {
			f.name = services.Content[0].Value
			service := services.Content[1]
			f.image, f.build = valueAt(service, "image"), nodeAt(service, "build") != nil
			if published := firstOf(nodeAt(service, "ports")); published != nil {
				inside := published.Value[strings.LastIndexByte(published.Value, ':')+1:]
				if target := valueAt(published, "target"); target != "" {
					inside = target
				}
				inside, _, _ = strings.Cut(inside, "/")
				f.port, _ = strconv.Atoi(inside)
			}
			if n := len(services.Content) / 2; n > 1 {
				f.more = fmt.Sprintf(" with %d services", n)
			}
		}
		return f
	case strings.Contains(valueAt(root, "$schema"), "deploymentTemplate"), nodeAt(root, "resources") != nil && nodeAt(root, "contentVersion") != nil:
		f := foreign{kind: "an ARM template"}
		if list := nodeAt(root, "resources"); list != nil {
			for _, resource := range list.Content {
				if strings.EqualFold(valueAt(resource, "type"), "Microsoft.App/containerApps") {
					container := firstOf(nodeAt(resource, "properties", "template", "containers"))
					f.name, f.image = valueAt(resource, "name"), valueAt(container, "image")
					f.port, _ = strconv.Atoi(valueAt(resource, "properties", "configuration", "ingress", "targetPort"))
					f.more = "; its resource of type Microsoft.App/containerApps is what is wanted here, with values in place of parameters"
					break
				}
			}
		}
		return f
	case nodeAt(root, "layers") != nil:
		f := foreign{kind: "an image.yaml", build: true}
		f.port, _ = strconv.Atoi(scalarOf(firstOf(nodeAt(root, "ports"))))
		return f
	}
	return nil
}

// nodeAt returns the value at a path of fields, or nil.
func nodeAt(n *yaml.Node, path ...string) *yaml.Node {
	for _, name := range path {
		if n == nil {
			return nil
		}
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == name {
					next = n.Content[i+1]
				}
			}
		}
		n = next
	}
	return n
}

// firstOf returns the first item of a list, or nil.
func firstOf(n *yaml.Node) *yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return nil
	}
	return n.Content[0]
}

// valueAt returns the text at a path of fields, or "".
func valueAt(n *yaml.Node, path ...string) string { return scalarOf(nodeAt(n, path...)) }

func scalarOf(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// yamlError explains an error of the YAML library. Its text for a tab says nothing of tabs.
func yamlError(data []byte, err error) error {
	i := 0
	for line := range strings.Lines(string(data)) {
		i++
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, "\t") {
			return fmt.Errorf("line %d: want spaces for the indentation, got a tab", i)
		}
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}
