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

// resolved returns a container with the current values of the secrets that its variables refer to.
func (k *keeper) resolved(ctx context.Context, c resource.Container) (resource.Container, error) {
	if !slices.ContainsFunc(c.Env, func(v resource.EnvVar) bool { return v.SecretRef != "" }) {
		return c, nil
	}
	secrets, err := k.e.cfg.Secrets(ctx, k.rev.App())
	if err != nil {
		return c, err
	}
	c.Env = slices.Clone(c.Env)
	for i, v := range c.Env {
		if v.SecretRef == "" {
			continue
		}
		secret, err := secretOf(k.rev.App(), secrets, v.SecretRef)
		if err != nil {
			return c, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		c.Env[i] = resource.EnvVar{Name: v.Name, Value: secret.Reveal()}
	}
	return c, nil
}

// environment merges a container's own variables over those of the platform.
func environment(platform []resource.EnvVar, replica string, c resource.Container) []resource.EnvVar {
	list := slices.Clone(platform)
	list = append(list, resource.EnvVar{Name: "CONTAINER_APP_REPLICA_NAME", Value: replica})
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
