package resource

// Progress says how far the platform has carried out what users wrote.
type Progress struct {
	// Observed is the newest Generation that the platform has finished, with success or not.
	Observed int64
	// Failure says why that generation failed. It is "" when it succeeded.
	Failure string `json:",omitempty"`
}

// State returns the provisioning state of a resource, which follows from what users wrote and from the progress.
func (p Progress) State(m Meta) ProvisioningState {
	switch {
	case !m.Deleted.IsZero():
		return Deleting
	case m.Generation > p.Observed:
		return InProgress
	case p.Failure != "":
		return Failed
	}
	return Succeeded
}

// Provisioning returns the provisioning state of the environment.
func (e Environment) Provisioning() ProvisioningState { return e.Progress.State(e.Meta) }

// Provisioning returns the provisioning state of the app.
func (a App) Provisioning() ProvisioningState { return a.Progress.State(a.Meta) }

// ProvisioningError returns why the newest generation of the app failed, or "" when it did not fail or is not finished.
func (a App) ProvisioningError() string {
	if a.Generation > a.Observed {
		return ""
	}
	return a.Failure
}

// Provisioning returns the provisioning state of the job.
func (j Job) Provisioning() ProvisioningState { return j.Progress.State(j.Meta) }
