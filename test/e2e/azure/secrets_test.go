package azure_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"
)

// The Azure SDK for Go writes secrets, reads them back by listSecrets, changes one, and may not remove one in use.
// Afterwards no value is found in anything that the server answered, logged or left on the disk.
func TestSecrets(t *testing.T) {
	target := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	answers := &recorder{next: target.Client.Transport}
	target.Client.Transport = answers
	clients := target.azure(t)
	apps := clients.NewContainerAppsClient()
	environment := environment(ctx, t, clients.NewManagedEnvironmentsClient(), "e2e")

	const first, second, other = "first-Kahr2eiPhoh9", "second-ooJ3ahgh7Zei", "other-Quee5ahB3oof"
	values := []string{first, second, other}
	wanted := app(environment, target.image)
	wanted.Properties.Configuration.Secrets = []*armappcontainers.Secret{
		{Name: new("password"), Value: new(first)}, {Name: new("other"), Value: new(other)},
	}
	wanted.Properties.Template.Containers[0].Env = []*armappcontainers.EnvironmentVar{{Name: new("PASSWORD"), SecretRef: new("password")}}
	made := put(ctx, t, apps, "e2e-echo", wanted)
	if env := made.Properties.Template.Containers[0].Env[0]; *env.SecretRef != "password" || env.Value == nil || *env.Value != "" {
		t.Errorf("the variable is answered as %+v", env)
	}
	secrets := func() map[string]string {
		t.Helper()
		answers.pause(true) // this answer is to tell the values
		defer answers.pause(false)
		list, err := apps.ListSecrets(ctx, group, "e2e-echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, s := range list.Value {
			found[*s.Name] = *s.Value
		}
		return found
	}
	if got := secrets(); len(got) != 2 || got["password"] != first || got["other"] != other {
		t.Errorf("listed %v", got)
	}

	// As az does it: read the app, change it, write it back.
	read, err := apps.Get(ctx, group, "e2e-echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range read.Properties.Configuration.Secrets {
		if s.Value != nil {
			t.Errorf("GET answers with the value of %s", *s.Name)
		}
		if *s.Name == "password" {
			s.Value = new(second)
		}
	}
	again := put(ctx, t, apps, "e2e-echo", read.ContainerApp)
	if got := secrets(); len(got) != 2 || got["password"] != second || got["other"] != other {
		t.Errorf("listed %v after password was changed", got)
	}
	if *again.Properties.LatestRevisionName != *made.Properties.LatestRevisionName {
		t.Errorf("a changed secret made revision %s after %s", *again.Properties.LatestRevisionName, *made.Properties.LatestRevisionName)
	}

	read.Properties.Configuration.Secrets = []*armappcontainers.Secret{{Name: new("other")}}
	_, err = apps.BeginCreateOrUpdate(ctx, group, "e2e-echo", read.ContainerApp, nil)
	if refused, ok := errors.AsType[*azcore.ResponseError](err); !ok || refused.StatusCode != http.StatusBadRequest || refused.ErrorCode != "ContainerAppSecretRefNotFound" {
		t.Errorf("a secret in use may be removed: %v", err)
	}
	read.Properties.Configuration.Secrets = []*armappcontainers.Secret{{Name: new("password")}}
	read.Properties.Template.Containers[0].Env[0].Name = new("PASS")
	last := put(ctx, t, apps, "e2e-echo", read.ContainerApp)
	running(ctx, t, clients, *last.Properties.LatestRevisionName)
	if got := secrets(); len(got) != 1 || got["password"] != second {
		t.Errorf("listed %v after other was removed", got)
	}
	events(ctx, t, target)
	search := func(where string, data []byte) {
		t.Helper()
		for _, value := range values {
			for _, form := range []string{value, base64.StdEncoding.EncodeToString([]byte(value))} {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("%s tells the secret %q", where, value)
				}
			}
		}
	}
	disk := func() (files int) {
		for _, folder := range target.folders {
			err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() {
					return err
				}
				data, err := os.ReadFile(path)
				search(path, data)
				files++
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return files
	}
	if len(target.folders) > 0 {
		disk() // with the database's log still beside it
	}
	remove(ctx, t, clients)
	search("an answer", answers.take())
	if target.stop != nil {
		search("the log", []byte(target.stop()))
		if files := disk(); files < 5 {
			t.Errorf("searched only %d files", files)
		}
		for _, kind := range []string{"console", "system"} {
			left, err := filepath.Glob(filepath.Join(target.folders[0], "logs", kind, "*e2e-echo*"))
			if err != nil || len(left) > 0 {
				t.Errorf("the deleted app's %s log is still there: %v, %v", kind, left, err)
			}
		}
	}
}

// events reads the app's event stream as it is now; the recorder keeps it.
func events(ctx context.Context, t *testing.T, target target) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.Endpoint+"/subscriptions/"+subscription+"/resourceGroups/"+group+
		"/providers/Microsoft.App/containerApps/e2e-echo/eventstream?tailLines=300", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+target.Token)
	resp, err := target.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil || !strings.Contains(text.String(), "ContainerStarted") {
		t.Errorf("the event stream: %v, %s", err, text.String())
	}
}
