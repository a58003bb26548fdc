package local

import (
	"slices"
	"strconv"

	"penstock/internal/resource"
)

// threadHints are the variables by which runtimes and number libraries learn how many threads to start. Without them
// they count the machine's CPUs, start too many threads for their quota and are throttled.
var threadHints = []string{"GOMAXPROCS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}

// environment puts a container's own variables over those of the platform.
func environment(platform []resource.EnvVar, replica string, c resource.Container) []resource.EnvVar {
	list := slices.Clone(platform)
	list = append(list, resource.EnvVar{Name: "CONTAINER_APP_REPLICA_NAME", Value: replica})
	if c.Resources.MilliCPU > 0 {
		threads := strconv.FormatInt((c.Resources.MilliCPU+999)/1000, 10)
		for _, name := range threadHints {
			list = append(list, resource.EnvVar{Name: name, Value: threads})
		}
	}
	list = slices.DeleteFunc(list, func(v resource.EnvVar) bool {
		return slices.ContainsFunc(c.Env, func(own resource.EnvVar) bool { return own.Name == v.Name })
	})
	return append(list, c.Env...)
}
