// Package memoryadvice warns about containers whose memory is too small for the model in their image.
package memoryadvice

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/weights"
)

// Images reads the images of this server.
type Images interface {
	Resolve(ctx context.Context, name string) (oci.Image, error)
	Weights(ctx context.Context, image oci.Image) ([]weights.File, error)
}

// Advisor compares the model weights in the images of new revisions with the memory of their containers, and emits an
// event if a container has too little. It works in the background, so neither a write nor a start waits for it.
type Advisor struct {
	images Images
	emit   func(resource.Event)
	queue  chan resource.Revision
	log    *slog.Logger
}

const (
	// queueLimit is the number of revisions that can wait to be checked. Further revisions are not checked.
	queueLimit = 64
	// checkTime is the time limit of one check. A compressed layer must be read whole the first time.
	checkTime = 10 * time.Minute
)

// New returns an Advisor. It works while Run runs.
func New(images Images, emit func(resource.Event), log *slog.Logger) *Advisor {
	return &Advisor{images: images, emit: emit, queue: make(chan resource.Revision, queueLimit), log: log}
}

// Created queues a new revision for a check. It never blocks.
func (a *Advisor) Created(revision resource.Revision) {
	select {
	case a.queue <- revision:
	default:
		a.log.Warn("too many new revisions at once; the memory of one is not checked", "revision", revision.Name())
	}
}

// Run checks queued revisions until ctx ends.
func (a *Advisor) Run(ctx context.Context) {
	for {
		select {
		case revision := <-a.queue:
			a.check(ctx, revision)
		case <-ctx.Done():
			return
		}
	}
}

func (a *Advisor) check(ctx context.Context, revision resource.Revision) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	for _, container := range revision.Template.Containers {
		ref := revision.Pinned(container.Image)
		image, err := a.images.Resolve(ctx, ref)
		if err != nil {
			continue // the image was removed while the revision waited in the queue
		}
		files, err := a.images.Weights(ctx, image)
		if err != nil {
			a.log.Debug("weights not read", "revision", revision.Name(), "image", ref, "err", err)
			continue
		}
		if message := tooSmall(container, weights.Models(files)); message != "" {
			a.emit(resource.Event{
				At: time.Now().UTC(), Warning: true, App: revision.App(), Revision: revision.Name(), Reason: "MemoryBelowWeights",
				Message: message, Source: "ContainerAppController",
			})
		}
	}
}

// tooSmall returns why a container cannot hold the largest model of its image, or "" if it can.
func tooSmall(container resource.Container, models []weights.Model) string {
	if len(models) == 0 || container.Resources.Memory <= 0 || models[0].Needs() <= container.Resources.Memory {
		return ""
	}
	model := models[0]
	return fmt.Sprintf("Container '%s': %s in %s; the container has %s. With what is computed beside the weights it takes about %s: %s",
		container.Name, model, model.Path, weights.GiB(container.Resources.Memory), weights.GiB(model.Needs()), smallestSize(model.Needs()))
}

// smallestSize names the smallest size of a replica with that memory.
func smallestSize(memory int64) string {
	const (
		step    = 512 << 20 // the Consumption profile sells memory by 0.5 GiB and 0.25 vCPU together
		largest = 16 * step
	)
	if steps := (memory + step - 1) / step; steps*step <= largest {
		return fmt.Sprintf("%g vCPU with %gGi would do", float64(steps)*0.25, float64(steps)*0.5)
	}
	return fmt.Sprintf("more than the Consumption profile has (8 GiB); a Dedicated one with %d GiB would do", (memory+1<<30-1)>>30)
}
