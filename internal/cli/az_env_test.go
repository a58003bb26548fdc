package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"penstock/internal/cli"
)

// What az-env prints sets the variables in a shell; the token is not in the text, but in the variables.
func TestAzEnv(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data of kim's")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	connection := `{"endpoint":"https://127.0.0.1:8444","ca":"` + data + `/ca.pem","tokenFile":"` + data + `/token"}`
	for name, text := range map[string]string{cli.ConnectionFile: connection, "token": "s3cret\n"} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	printed := call(t, nil, "az-env", "--data", data)
	if printed.code != 0 || strings.Contains(printed.stdout+printed.stderr, "s3cret") {
		t.Fatalf("got %+v", printed)
	}
	shell := exec.CommandContext(t.Context(), "sh", "-c", printed.stdout+"\nenv")
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("sh: %v\n%s", err, out)
	}
	for _, want := range []string{
		"REQUESTS_CA_BUNDLE=" + data + "/ca.pem", "SSL_CERT_FILE=" + data + "/ca.pem", "NODE_EXTRA_CA_CERTS=" + data + "/ca.pem",
		"AZURE_AUTHORITY_HOST=https://127.0.0.1:8444", "AZURE_TENANT_ID=adfs", "AZURE_CLIENT_SECRET=s3cret",
		"ARM_METADATA_HOSTNAME=127.0.0.1:8444", "ARM_CLIENT_SECRET=s3cret", "AZURE_SUBSCRIPTION_ID=00000000-0000-0000-0000-000000000000",
	} {
		if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
			t.Errorf("want %s in\n%s", want, out)
		}
	}
	if !strings.Contains(printed.stdout, "--endpoint-active-directory https://127.0.0.1:8444/adfs") {
		t.Errorf("how az logs in is not told: %s", printed.stdout)
	}
	remote := map[string]string{"PENSTOCK_ENDPOINT": "https://gpu.example:8444", "PENSTOCK_TOKEN": "s3cret"}
	printed = call(t, remote, "az-env", "-o", "json")
	if printed.code != 0 || !strings.Contains(printed.stdout, `"metadataHost": "gpu.example:8444"`) || strings.Contains(printed.stdout, "s3cret") {
		t.Errorf("of a remote server: %+v", printed)
	}
	if printed = call(t, nil, "az-env"); printed.code == 0 || !strings.Contains(printed.stderr, "no server runs on data folder") {
		t.Errorf("without a server: %+v", printed)
	}
}
