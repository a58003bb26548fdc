package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"penstock/internal/resource"
)

const storagesPath = base + "/managedEnvironments/e/storages"

func azureFile(key, access string) string {
	return fmt.Sprintf(`{"properties":{"azureFile":{"accountName":"models","accountKey":%q,"shareName":"chat","accessMode":%q}}}`, key, access)
}

// mounting is an app with a volume, in JSON.
func mounting(t *testing.T, volume string) string {
	t.Helper()
	body := chat(func(properties, _, container map[string]any) {
		properties["template"].(map[string]any)["volumes"] = []any{"VOLUME"}
		container["volumeMounts"] = []any{map[string]any{"volumeName": "v", "mountPath": "/v"}}
	})
	return strings.Replace(body, `"VOLUME"`, volume, 1)
}

func TestStorages(t *testing.T) {
	s := start(t)
	const path, key = storagesPath + "/models" + version, "dGhlIGtleQ=="
	if a := s.want(404, "PUT", path, azureFile(key, "ReadWrite")); !strings.Contains(string(a.body), "managedEnvironments/e") {
		t.Errorf("a storage of an environment that is not there: %s", a.body)
	}
	s.environment("e")
	if a := s.want(404, "GET", path, ""); !strings.Contains(string(a.body), `"ManagedEnvironmentStorageNotFound"`) {
		t.Errorf("none there: %s", a.body)
	}
	put := s.want(200, "PUT", path, azureFile(key, "ReadWrite"))
	got := s.want(200, "GET", strings.ToUpper(storagesPath)+"/MODELS"+version, "")
	list := s.want(200, "GET", storagesPath+version, "")
	for what, body := range map[string][]byte{"PUT": put.body, "GET": got.body, "list": list.body} {
		if strings.Contains(string(body), key) || strings.Contains(string(body), "accountKey") {
			t.Errorf("%s answers with the key: %s", what, body)
		}
		for _, want := range []string{
			`"id":"` + storagesPath + `/models","name":"models","type":"Microsoft.App/managedEnvironments/storages"`,
			`"azureFile":{"accountName":"models","accessMode":"ReadWrite","shareName":"chat"}`,
		} {
			if !strings.Contains(string(body), want) {
				t.Errorf("%s: want %s in %s", what, want, body)
			}
		}
	}
	kept, err := s.store.Storages().Get(t.Context(), resource.EnvironmentID(subscription, "ml", "e").Child("storages", "models"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(kept); err != nil || strings.Contains(string(text), key) || len(kept.Sealed) == 0 {
		t.Errorf("kept as %s, %v", text, err)
	}

	// What was read is written back; the key stays, and another may be set. Nothing else can be changed.
	s.want(200, "PUT", path, string(got.body))
	s.want(200, "PUT", path, azureFile("bmV3", "ReadWrite"))
	for name, test := range map[string]struct{ body, code, says string }{
		"another mode":       {azureFile(key, "ReadOnly"), "ManagedEnvironmentStorageInvalidValue", `properties.azureFile.accessMode: only the key`},
		"another type":       {`{"properties":{"nfsAzureFile":{"server":"s","shareName":"/a","accessMode":"ReadWrite"}}}`, "ManagedEnvironmentStorageInvalidValue", `want \"AzureFile\", got \"NfsAzureFile\"`},
		"a mode of no word":  {azureFile(key, "Append"), "ContainerAppInvalidValue", "want ReadOnly or ReadWrite"},
		"no mode":            {azureFile(key, ""), "ManagedEnvironmentStorageInvalidValue", "properties.azureFile.accessMode"},
		"neither type":       {`{"properties":{}}`, "ContainerAppInvalidValue", "want one of azureFile and nfsAzureFile"},
		"an account of dots": {strings.Replace(azureFile(key, "ReadWrite"), "models", "../etc", 1), "ManagedEnvironmentStorageInvalidValue", "properties.azureFile.accountName"},
		"an unknown field":   {`{"properties":{"folder":"/etc"}}`, "ManagedEnvironmentStorageInvalidSchema", "unknown field"},
	} {
		if a := s.want(400, "PUT", path, test.body); !strings.Contains(string(a.body), `"`+test.code+`"`) || !strings.Contains(string(a.body), test.says) {
			t.Errorf("%s: %s, want %s: %s", name, a.body, test.code, test.says)
		}
	}
	if a := s.want(400, "PUT", storagesPath+"/other"+version, azureFile("", "ReadWrite")); !strings.Contains(string(a.body), "accountKey") {
		t.Errorf("a new one without a key: %s", a.body)
	}
	for _, name := range []string{"..", "a--.", "UPPER", "a%2Fb", strings.Repeat("a", 33)} {
		if a := s.do("PUT", storagesPath+"/"+name+version, azureFile(key, "ReadWrite")); a.status < 400 {
			t.Errorf("a storage named %q was made: %s", name, a.body)
		}
	}
	s.want(405, "PATCH", path, `{}`)
}

func TestVolumesOfStorages(t *testing.T) {
	s := start(t)
	s.environment("e")
	const path = storagesPath + "/models" + version
	for name, test := range map[string]struct{ volume, code, field string }{
		"a storage that is not there": {`{"name":"v","storageType":"AzureFile","storageName":"models"}`, "ManagedEnvironmentStorageNotFound", "template.volumes[0].storageName"},
		"no storage":                  {`{"name":"v","storageType":"AzureFile"}`, "ContainerAppInvalidValue", "template.volumes[0].storageName"},
		"a storage of an EmptyDir":    {`{"name":"v","storageType":"EmptyDir","storageName":"models"}`, "ContainerAppInvalidValue", "template.volumes[0].storageName"},
		"options of an EmptyDir":      {`{"name":"v","mountOptions":"ro"}`, "ContainerAppInvalidValue", "template.volumes[0].mountOptions"},
		"options with a gap":          {`{"name":"v","storageType":"AzureFile","storageName":"models","mountOptions":"ro,,uid=1"}`, "ContainerAppInvalidValue", "template.volumes[0].mountOptions"},
	} {
		if a := s.want(400, "PUT", chatPath, mounting(t, test.volume)); !strings.Contains(string(a.body), `"code":"`+test.code+`"`) || !strings.Contains(string(a.body), `"target":"`+test.field+`"`) {
			t.Errorf("%s: %s, want %s of %s", name, a.body, test.code, test.field)
		}
	}
	s.want(200, "PUT", path, azureFile("a2V5", "ReadWrite"))
	if a := s.want(400, "PUT", chatPath, mounting(t, `{"name":"v","storageType":"NfsAzureFile","storageName":"models"}`)); !strings.Contains(string(a.body), "want AzureFile, the type of the storage 'models'") {
		t.Errorf("the wrong type: %s", a.body)
	}
	volume := `{"name":"v","storageType":"AzureFile","storageName":"models","mountOptions":"ro,uid=1000"}`
	put := s.want(201, "PUT", chatPath, mounting(t, volume))
	s.await(put, "Azure-AsyncOperation")
	if !strings.Contains(string(put.body), `{"name":"v","storageType":"AzureFile","storageName":"models","mountOptions":"ro,uid=1000"}`) {
		t.Errorf("answered as %s", put.body)
	}
	if a := s.want(409, "DELETE", path, ""); !strings.Contains(string(a.body), `"ManagedEnvironmentStorageInUse"`) || !strings.Contains(string(a.body), "container app 'chat'") {
		t.Errorf("a storage in use: %s", a.body)
	}
	// A merge patch replaces the list of volumes; here it takes them away.
	s.await(s.want(202, "PATCH", chatPath, `{"properties":{"template":{"volumes":null,"containers":[{"name":"chat","image":"chat:1"}]}}}`), "Azure-AsyncOperation")
	if a := s.want(409, "DELETE", path, ""); !strings.Contains(string(a.body), "revision 'chat--") {
		t.Errorf("a storage that an active revision mounts: %s", a.body)
	}
	s.await(s.want(202, "DELETE", chatPath, ""), "Azure-AsyncOperation")
	s.want(200, "DELETE", path, "")
	s.want(204, "DELETE", path, "")
	if a := s.want(200, "GET", storagesPath+version, ""); string(a.body) != `{"value":[]}` {
		t.Errorf("listed after all were deleted: %s", a.body)
	}
}
