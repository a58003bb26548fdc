package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"penstock/internal/oci"
	"penstock/internal/resource"
	"penstock/internal/weights"
)

// advisor compares the weights in the images of new revisions with the memory that their containers get. It looks on
// its own time: neither a write nor a start waits for it.
type advisor struct {
	images *oci.Images
	emit   func(resource.Event)
	queue  chan resource.Revision
	log    *slog.Logger
}

const (
	// adviceQueue bounds the revisions that wait to be looked at. One more goes without advice.
	adviceQueue = 64
	// adviceTime bounds one look: a compressed layer is read whole the first time.
	adviceTime = 10 * time.Minute
)

func newAdvisor(images *oci.Images, emit func(resource.Event), log *slog.Logger) *advisor {
	return &advisor{images: images, emit: emit, queue: make(chan resource.Revision, adviceQueue), log: log}
}

// created asks for a look at a new revision. It never blocks.
func (a *advisor) created(revision resource.Revision) {
	if a.images == nil {
		return
	}
	select {
	case a.queue <- revision:
	default:
		a.log.Warn("too many new revisions at once; the weights of one are not looked at", "revision", revision.Name())
	}
}

// run looks at revisions until ctx ends.
func (a *advisor) run(ctx context.Context) {
	for {
		select {
		case revision := <-a.queue:
			a.advise(ctx, revision)
		case <-ctx.Done():
			return
		}
	}
}

func (a *advisor) advise(ctx context.Context, revision resource.Revision) {
	ctx, cancel := context.WithTimeout(ctx, adviceTime)
	defer cancel()
	for _, container := range revision.Template.Containers {
		ref := revision.Pinned(container.Image)
		image, err := a.images.Resolve(ctx, ref)
		if err != nil {
			continue // it went while the revision waited here
		}
		models, err := models(ctx, a.images, image)
		if err != nil {
			a.log.Debug("weights not looked at", "revision", revision.Name(), "image", ref, "err", err)
			continue
		}
		if message := tooSmall(container, models); message != "" {
			a.emit(resource.Event{
				At: time.Now().UTC(), Warning: true, App: revision.App(), Revision: revision.Name(), Reason: "MemoryBelowWeights",
				Message: message, Source: "ContainerAppController",
			})
		}
	}
}

func models(ctx context.Context, images *oci.Images, image oci.Image) ([]weights.Model, error) {
	files, err := images.Weights(ctx, image)
	return weights.Models(files), err
}

// tooSmall says why a container cannot hold the largest model of its image, "" when it can.
func tooSmall(container resource.Container, models []weights.Model) string {
	if len(models) == 0 || container.Resources.Memory <= 0 || models[0].Needs() <= container.Resources.Memory {
		return ""
	}
	model := models[0]
	return fmt.Sprintf("Container '%s': %s in %s; the container has %s. With what is computed beside the weights it takes about %s: %s",
		container.Name, model, model.Path, weights.GiB(container.Resources.Memory), weights.GiB(model.Needs()), wouldDo(model.Needs()))
}

// wouldDo names the smallest size of a replica that has the memory.
func wouldDo(memory int64) string {
	const (
		step    = 512 << 20 // the Consumption profile sells memory by 0.5 GiB and 0.25 vCPU together
		largest = 16 * step
	)
	if steps := (memory + step - 1) / step; steps*step <= largest {
		return fmt.Sprintf("%g vCPU with %gGi would do", float64(steps)*0.25, float64(steps)*0.5)
	}
	return fmt.Sprintf("more than the Consumption profile has (8 GiB); a Dedicated one with %d GiB would do", (memory+1<<30-1)>>30)
}
