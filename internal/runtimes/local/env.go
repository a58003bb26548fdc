package local

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"penstock/internal/resource"
)

// threadHints are the variables from which runtimes and numeric libraries read how many threads to start. Without them
// they count the machine's CPUs, start too many threads for their quota and are throttled. A value that the container
// or the image sets takes precedence.
var threadHints = []string{"GOMAXPROCS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}

// noSecrets is the default of Config.Secrets. It returns no secrets.
func noSecrets(context.Context, resource.ID) (map[string]resource.Secret, error) { return nil, nil }

// resolved returns a container with the current values of the secrets that its variables refer to, and with the values of
// variables for $(NAME) in later variables, its command and its args. The value of a secret is not searched for $(NAME).
func (k *keeper) resolved(ctx context.Context, c resource.Container) (resource.Container, error) {
	var secrets map[string]resource.Secret
	if slices.ContainsFunc(c.Env, func(v resource.EnvVar) bool { return v.SecretRef != "" }) {
		var err error
		if secrets, err = k.e.cfg.Secrets(ctx, k.rev.App()); err != nil {
			return c, err
		}
	}
	known := map[string]string{}
	for _, v := range ofPlatform(k.env, k.name) {
		known[v.Name] = v.Value
	}
	value := func(name string) (string, bool) {
		v, ok := known[name]
		return v, ok
	}
	c.Env = slices.Clone(c.Env)
	for i, v := range c.Env {
		text := resource.Expand(v.Value, value)
		if v.SecretRef != "" {
			secret, err := secretOf(k.rev.App(), secrets, v.SecretRef)
			if err != nil {
				return c, fmt.Errorf("variable %s: %w", v.Name, err)
			}
			text = secret.Reveal()
		}
		if len(v.Name)+1+len(text) > resource.MaxText {
			return c, fmt.Errorf("variable %s: want at most %d bytes with its name and the values of the variables in it", v.Name, resource.MaxText)
		}
		c.Env[i] = resource.EnvVar{Name: v.Name, Value: text}
		known[v.Name] = text
	}
	for what, words := range map[string]*[]string{"command": &c.Command, "args": &c.Args} {
		*words = slices.Clone(*words)
		for i, word := range *words {
			if (*words)[i] = resource.Expand(word, value); len((*words)[i]) > resource.MaxText {
				return c, fmt.Errorf("%s[%d]: want at most %d bytes with the values of the variables in it", what, i, resource.MaxText)
			}
		}
	}
	return c, nil
}

// ofPlatform returns the variables that the platform gives to each container of a replica.
func ofPlatform(platform []resource.EnvVar, replica string) []resource.EnvVar {
	return append(slices.Clone(platform), resource.EnvVar{Name: "CONTAINER_APP_REPLICA_NAME", Value: replica})
}

// environment merges a container's own variables over those of the platform.
func environment(platform []resource.EnvVar, replica string, c resource.Container) []resource.EnvVar {
	list := ofPlatform(platform, replica)
	list = slices.DeleteFunc(list, func(v resource.EnvVar) bool {
		return slices.ContainsFunc(c.Env, func(own resource.EnvVar) bool { return own.Name == v.Name })
	})
	return append(list, c.Env...)
}

// hints returns variables that a container gets unless it or its image sets them.
func hints(c resource.Container) []resource.EnvVar {
	if c.Resources.MilliCPU <= 0 {
		return nil
	}
	threads := strconv.FormatInt((c.Resources.MilliCPU+999)/1000, 10)
	var list []resource.EnvVar
	for _, name := range threadHints {
		list = append(list, resource.EnvVar{Name: name, Value: threads})
	}
	return list
}
