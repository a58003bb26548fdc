package oci_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"

	"penstock/internal/oci"
)

func TestPushedImagePullsBackWhole(t *testing.T) {
	s := newServer(t)
	img, err := random.Image(3<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	s.push(t, "team/model:1", img)
	for _, ref := range []string{"team/model:1", "team/model@" + digestOf(t, img)} {
		got, err := remote.Image(s.ref(t, ref))
		if err != nil {
			t.Fatal(err)
		}
		if digestOf(t, got) != digestOf(t, img) {
			t.Errorf("%s: got %s, want %s", ref, digestOf(t, got), digestOf(t, img))
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	repo := s.ref(t, "team/model:1").Context()
	if tags, err := remote.List(repo); err != nil || !slices.Equal(tags, []string{"1"}) {
		t.Errorf("tags: got %v, %v, want 1", tags, err)
	}
	if repos, err := remote.Catalog(t.Context(), repo.Registry); err != nil || !slices.Equal(repos, []string{"team/model"}) {
		t.Errorf("catalog: got %v, %v, want team/model", repos, err)
	}
}

func TestIndexPullsBackWhole(t *testing.T) {
	s := newServer(t)
	amd, arm := newImage(t, "amd64", "shared", "amd"), newImage(t, "arm64", "shared", "arm")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	if err := remote.WriteIndex(s.ref(t, "multi:1"), index); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	got, err := remote.Index(s.ref(t, "multi:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(got, validate.Fast); err != nil {
		t.Error(err)
	}
	// The records that held the images until the index arrived are gone. There is one name, and deleting it frees
	// everything.
	list, err := s.images.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "multi:1" || list[0].Problem != "" {
		t.Errorf("list: got %+v, %v, want multi:1", list, err)
	}
	image, err := s.images.Resolve(t.Context(), "multi:1")
	if err != nil || image.Digest.String() != digestOf(t, index) {
		t.Errorf("resolve: got %+v, %v, want the index", image, err)
	}
	byDigest := "multi@" + digestOf(t, map[string]v1.Image{"amd64": amd, "arm64": arm}[runtime.GOARCH])
	if image, err = s.images.Resolve(t.Context(), byDigest); err != nil || image.Name != byDigest {
		t.Errorf("resolve %s: got %+v, %v", byDigest, image, err)
	}
	if err := s.images.Delete(t.Context(), "multi:1"); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	if s.has(t, digestOf(t, index)) || s.has(t, digestOf(t, amd)) || s.has(t, digest.FromString("shared").String()) {
		t.Error("the deleted index left something behind")
	}
}

func TestGarbageCollection(t *testing.T) {
	s := newServer(t)
	one, two := newImage(t, "amd64", "weights", "code 1"), newImage(t, "amd64", "weights", "code 2")
	s.push(t, "one:1", one)
	s.push(t, "two:1", two)
	s.collect(t)
	for _, ref := range []string{"one:1", "two:1"} {
		got, err := remote.Image(s.ref(t, ref))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got, validate.Fast); err != nil {
			t.Errorf("%s after collection: %v", ref, err)
		}
	}
	if err := remote.Delete(s.ref(t, "one:1")); err != nil {
		t.Fatal(err)
	}
	s.collect(t)
	for content, want := range map[string]bool{"weights": true, "code 1": false, "code 2": true} {
		if got := s.has(t, digest.FromString(content).String()); got != want {
			t.Errorf("layer %q after delete of one: there %v, want %v", content, got, want)
		}
	}
	if s.has(t, digestOf(t, one)) {
		t.Error("manifest of one after its delete: still there")
	}
	s.answer(t, http.StatusNotFound, "MANIFEST_UNKNOWN", http.MethodGet, "/v2/one/manifests/1", "")
	s.answer(t, http.StatusNotFound, "NAME_UNKNOWN", http.MethodGet, "/v2/one/tags/list", "")
	leases, err := s.stores.Leases.List(inStore(t.Context()))
	if err != nil || len(leases) != 0 {
		t.Errorf("leases after all pushes: got %v, %v, want none", leases, err)
	}
}

func TestTagMovesToItsNewManifest(t *testing.T) {
	s := newServer(t)
	old := newImage(t, runtime.GOARCH, "old")
	s.push(t, "app:1", old)
	s.push(t, "app:1", newImage(t, runtime.GOARCH, "new"))
	s.collect(t)
	// A revision that is being created may mean the old image. It is kept by its digest until a collector finds that
	// nothing needs it.
	if _, err := s.images.Resolve(t.Context(), "app:1@"+digestOf(t, old)); err != nil || !s.has(t, digest.FromString("new").String()) {
		t.Errorf("after a second push: %v, want both", err)
	}
	s.answer(t, http.StatusOK, "", http.MethodGet, "/v2/app/manifests/"+digestOf(t, old), "")
}

func TestUploadInProgressOutlivesCollectionAndRestart(t *testing.T) {
	s := newServer(t)
	blob := randomBytes(300_000)
	d := digest.FromBytes(blob).String()
	loc := s.answer(t, http.StatusAccepted, "", http.MethodPost, "/v2/app/blobs/uploads/", "").Header.Get("Location")
	chunk := func(from, to int, status int) *http.Response {
		t.Helper()
		return s.answer(t, status, "", http.MethodPatch, loc, string(blob[from:to]), "Content-Range", fmt.Sprintf("%d-%d", from, to-1))
	}
	if got := chunk(0, 100_000, http.StatusAccepted).Header.Get("Range"); got != "0-99999" {
		t.Errorf("range after the first chunk: got %s, want 0-99999", got)
	}
	s.collect(t)
	chunk(100_000, 200_000, http.StatusAccepted)
	// The chunk does not start at the next byte. The response says where to continue.
	if got := chunk(250_000, 300_000, http.StatusRequestedRangeNotSatisfiable).Header.Get("Range"); got != "0-199999" {
		t.Errorf("range after a gap: got %s, want 0-199999", got)
	}
	s.open(t)
	s.collect(t)
	if got := s.answer(t, http.StatusNoContent, "", http.MethodGet, loc, "").Header.Get("Range"); got != "0-199999" {
		t.Errorf("range after a restart: got %s, want 0-199999", got)
	}
	s.answer(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", http.MethodGet, strings.Replace(loc, "/app/", "/other/", 1), "")
	s.answer(t, http.StatusCreated, "", http.MethodPut, loc+"?digest="+d, string(blob[200_000:]), "Content-Range", "200000-299999")
	s.collect(t)
	if !s.has(t, d) {
		t.Error("blob before its manifest after collection: gone")
	}
	s.answer(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", http.MethodPatch, loc, "x")
}

// A client that loses its connection continues where the server is.
func TestUploadResumesAfterLostConnection(t *testing.T) {
	s := newServer(t)
	blob := randomBytes(1 << 20)
	d := digest.FromBytes(blob).String()
	loc := s.answer(t, http.StatusAccepted, "", http.MethodPost, "/v2/app/blobs/uploads/", "").Header.Get("Location")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", loc, len(blob))
	// The registry asks for the body when this request has the upload to itself. Without that, the next request could
	// come first, and the bytes of this one would be written after it.
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v; want 100 Continue", line, err)
	}
	if _, err := conn.Write(blob[:700_000]); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	state := s.answer(t, http.StatusNoContent, "", http.MethodGet, loc, "") // waits for the end of the lost request
	var last int
	if _, err := fmt.Sscanf(state.Header.Get("Range"), "0-%d", &last); err != nil || last+1 > 700_000 {
		t.Fatalf("range: got %q, %v", state.Header.Get("Range"), err)
	}
	from := last + 1
	if last == 0 {
		from = 0 // "0-0" also means that nothing has arrived
	}
	s.answer(t, http.StatusCreated, "", http.MethodPut, loc+"?digest="+d, string(blob[from:]),
		"Content-Range", fmt.Sprintf("%d-%d", from, len(blob)-1))
	if !s.has(t, d) {
		t.Error("resumed blob: not there")
	}
}

func TestMonolithicUploadMountAndRanges(t *testing.T) {
	s := newServer(t)
	d := digest.FromString("0123456789").String()
	s.answer(t, http.StatusCreated, "", http.MethodPost, "/v2/a/blobs/uploads/?digest="+d, "0123456789")
	resp, body := s.do(t, http.MethodGet, "/v2/a/blobs/"+d, "", "Range", "bytes=3-5")
	if resp.StatusCode != http.StatusPartialContent || body != "345" {
		t.Errorf("range: got %d %q, want 206 345", resp.StatusCode, body)
	}
	got := s.answer(t, http.StatusCreated, "", http.MethodPost, "/v2/b/blobs/uploads/?from=a&mount="+d, "").Header.Get("Location")
	if want := "/v2/b/blobs/" + d; got != want {
		t.Errorf("mount: got location %s, want %s", got, want)
	}
	missing := digest.FromString("missing").String()
	s.answer(t, http.StatusAccepted, "", http.MethodPost, "/v2/b/blobs/uploads/?from=a&mount="+missing, "")
	empty := digest.FromString("").String()
	s.answer(t, http.StatusCreated, "", http.MethodPost, "/v2/a/blobs/uploads/?digest="+empty, "")
	s.answer(t, http.StatusOK, "", http.MethodGet, "/v2/a/blobs/"+empty, "")
	// Uploading an existing blob again is no error.
	s.answer(t, http.StatusCreated, "", http.MethodPost, "/v2/a/blobs/uploads/?digest="+d, "0123456789")

	loc := s.answer(t, http.StatusAccepted, "", http.MethodPost, "/v2/a/blobs/uploads/", "").Header.Get("Location")
	s.answer(t, http.StatusNoContent, "", http.MethodDelete, loc, "")
	s.answer(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", http.MethodGet, loc, "")
}

func TestTagsArePaged(t *testing.T) {
	s := newServer(t)
	img := newImage(t, "amd64", "x")
	for _, tag := range []string{"a", "b", "c"} {
		s.push(t, "app:"+tag, img)
	}
	resp, body := s.do(t, http.MethodGet, "/v2/app/tags/list?n=2", "")
	if want := `{"name":"app","tags":["a","b"]}`; body != want {
		t.Errorf("got %s, want %s", body, want)
	}
	next := strings.TrimSuffix(strings.TrimPrefix(resp.Header.Get("Link"), "<"), `>; rel="next"`)
	if _, body = s.do(t, http.MethodGet, next, ""); body != `{"name":"app","tags":["c"]}` {
		t.Errorf("%s: got %s, want c", next, body)
	}
	s.answer(t, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", http.MethodGet, "/v2/app/tags/list?n=-1", "")
	tags, err := remote.List(s.ref(t, "app:a").Context(), remote.WithPageSize(1))
	if err != nil || !slices.Equal(tags, []string{"a", "b", "c"}) {
		t.Errorf("got %v, %v, want a b c", tags, err)
	}
}

// TestHostileRequests checks that invalid requests are refused, and with which error.
func TestHostileRequests(t *testing.T) {
	s := newServer(t)
	img := newImage(t, "amd64", "layer")
	s.push(t, "app:1", img)
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	const image, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	config, layer := m.Config.Digest.String(), m.Layers[0].Digest.String()
	size := m.Layers[0].Size
	edit := func(old, now string) string { return strings.ReplaceAll(string(raw), old, now) }
	upload := func() string {
		return s.answer(t, http.StatusAccepted, "", http.MethodPost, "/v2/app/blobs/uploads/", "").Header.Get("Location")
	}
	put := func(d, body string) string {
		s.answer(t, http.StatusCreated, "", http.MethodPost, "/v2/app/blobs/uploads/?digest="+d, body)
		return d
	}
	notJSON := put(digest.FromString("no json").String(), "no json")
	zeros := "sha256:" + strings.Repeat("0", 64)
	manifestAt := "/v2/app/manifests/evil"
	tests := map[string]struct {
		method, path, body, contentType string
		status                          int
		code                            string
	}{
		"digest that lies, at once":     {http.MethodPost, "/v2/app/blobs/uploads/?digest=" + layer, "other", "", 400, "DIGEST_INVALID"},
		"digest that lies, at the end":  {http.MethodPut, upload() + "?digest=" + layer, "other", "", 400, "DIGEST_INVALID"},
		"digest missing":                {http.MethodPut, upload(), "other", "", 400, "DIGEST_INVALID"},
		"digest with a path":            {http.MethodGet, "/v2/app/blobs/sha256:..%2f..%2fetc%2fpasswd", "", "", 404, ""},
		"digest of another kind":        {http.MethodGet, "/v2/app/blobs/md5:" + strings.Repeat("0", 32), "", "", 400, "DIGEST_INVALID"},
		"blob unknown":                  {http.MethodGet, "/v2/app/blobs/" + zeros, "", "", 404, "BLOB_UNKNOWN"},
		"name with dots":                {http.MethodGet, "/v2/../x/manifests/1", "", "", 400, "NAME_INVALID"},
		"name with dots, escaped":       {http.MethodGet, "/v2/%2e%2e/%2e%2e/etc/manifests/1", "", "", 400, "NAME_INVALID"},
		"name in upper case":            {http.MethodPost, "/v2/App/blobs/uploads/", "", "", 400, "NAME_INVALID"},
		"name empty":                    {http.MethodGet, "/v2//manifests/1", "", "", 400, "NAME_INVALID"},
		"name too long":                 {http.MethodGet, "/v2/" + strings.Repeat("a", 256) + "/tags/list", "", "", 400, "NAME_INVALID"},
		"mount from a bad name":         {http.MethodPost, "/v2/app/blobs/uploads/?from=../x&mount=" + layer, "", "", 400, "NAME_INVALID"},
		"upload unknown":                {http.MethodPatch, "/v2/app/blobs/uploads/NOTHING", "x", "", 404, "BLOB_UPLOAD_UNKNOWN"},
		"upload with a path":            {http.MethodPatch, "/v2/app/blobs/uploads/..%2f..", "x", "", 404, ""},
		"tag with a path":               {http.MethodPut, "/v2/app/manifests/..", "{}", image, 400, "TAG_INVALID"},
		"manifest of no JSON":           {http.MethodPut, manifestAt, "hello", image, 400, "MANIFEST_INVALID"},
		"manifest of null":              {http.MethodPut, manifestAt, "null", image, 400, "MANIFEST_INVALID"},
		"manifest of schema 1":          {http.MethodPut, manifestAt, `{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+json", 400, "MANIFEST_INVALID"},
		"manifest with two media types": {http.MethodPut, manifestAt, string(raw), index, 400, "MANIFEST_INVALID"},
		"manifest that is an index too": {http.MethodPut, manifestAt, edit(`"layers"`, `"manifests":[],"layers"`), image, 400, "MANIFEST_INVALID"},
		"manifest too large":            {http.MethodPut, manifestAt, strings.Repeat(" ", 4<<20) + string(raw), image, 413, "MANIFEST_INVALID"},
		"manifest with too many layers": {http.MethodPut, manifestAt, edit(`"layers":[`, `"layers":[`+strings.Repeat("{},", 5000)), image, 400, "MANIFEST_INVALID"},
		"negative size":                 {http.MethodPut, manifestAt, edit(fmt.Sprintf(`"size":%d`, size), `"size":-1`), image, 400, "MANIFEST_INVALID"},
		"size of 2^63":                  {http.MethodPut, manifestAt, edit(fmt.Sprintf(`"size":%d`, size), `"size":9223372036854775808`), image, 400, "MANIFEST_INVALID"},
		"size that lies":                {http.MethodPut, manifestAt, edit(fmt.Sprintf(`"size":%d`, size), `"size":9223372036854775807`), image, 400, "MANIFEST_INVALID"},
		"layer that is missing":         {http.MethodPut, manifestAt, edit(layer, zeros), image, 404, "MANIFEST_BLOB_UNKNOWN"},
		"layer with a bad digest":       {http.MethodPut, manifestAt, edit(layer, "sha256:../../x"), image, 400, "MANIFEST_INVALID"},
		"config that is missing":        {http.MethodPut, manifestAt, edit(config, zeros), image, 404, "MANIFEST_BLOB_UNKNOWN"},
		"config that is no JSON":        {http.MethodPut, manifestAt, strings.Replace(edit(config, notJSON), fmt.Sprintf(`"size":%d`, m.Config.Size), `"size":7`, 1), image, 400, "MANIFEST_INVALID"},
		"fewer layers than diff IDs":    {http.MethodPut, manifestAt, string(raw[:bytes.Index(raw, []byte(`"layers":[`))]) + `"layers":[]}`, image, 400, "MANIFEST_INVALID"},
		"index of what is missing":      {http.MethodPut, manifestAt, `{"schemaVersion":2,"manifests":[{"mediaType":"` + image + `","size":1,"digest":"` + zeros + `"}]}`, index, 404, "MANIFEST_BLOB_UNKNOWN"},
		"index of a missing index":      {http.MethodPut, manifestAt, `{"schemaVersion":2,"manifests":[{"mediaType":"` + index + `","size":1,"digest":"` + zeros + `"}]}`, index, 404, "MANIFEST_BLOB_UNKNOWN"},
		"manifest by another's digest":  {http.MethodPut, "/v2/app/manifests/" + zeros, string(raw), image, 400, "DIGEST_INVALID"},
		"layer asked for as a manifest": {http.MethodGet, "/v2/app/manifests/" + layer, "", "", 404, "MANIFEST_UNKNOWN"},
		"delete of an unknown tag":      {http.MethodDelete, "/v2/app/manifests/2", "", "", 404, "MANIFEST_UNKNOWN"},
		"delete of an image's blob":     {http.MethodDelete, "/v2/app/blobs/" + layer, "", "", 405, "UNSUPPORTED"},
		"delete of an unknown blob":     {http.MethodDelete, "/v2/app/blobs/" + zeros, "", "", 404, "BLOB_UNKNOWN"},
		"subject with a bad digest":     {http.MethodPut, manifestAt, edit(`"schemaVersion":2`, `"schemaVersion":2,"subject":{"mediaType":"x","size":1,"digest":"sha256:../x"}`), image, 400, "MANIFEST_INVALID"},
		"referrers of a bad digest":     {http.MethodGet, "/v2/app/referrers/latest", "", "", 400, "DIGEST_INVALID"},
		"path that is none":             {http.MethodGet, "/v2/app/what", "", "", 404, "UNSUPPORTED"},
		"path outside":                  {http.MethodGet, "/v1/", "", "", 404, "UNSUPPORTED"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			s.answer(t, tt.status, tt.code, tt.method, tt.path, tt.body, "Content-Type", tt.contentType)
		})
	}
	chunks := map[string]int{"0-": 416, "5-3": 416, "-1-3": 416, "x": 416, "0-9223372036854775807": 416, "0-99": 400, "0-2": 202}
	for chunk, status := range chunks {
		s.answer(t, status, "", http.MethodPatch, upload(), "abc", "Content-Range", chunk)
	}
	// A body without a declared length has more bytes than its range.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, s.URL+upload(), io.MultiReader(strings.NewReader("abc")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Range", "0-1")
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("chunk longer than its range: got %d, want 400", resp.StatusCode)
	}
	// None of these requests created a name or an image.
	list, err := s.images.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "app:1" || list[0].Problem != "" {
		t.Errorf("list: got %+v, %v, want app:1", list, err)
	}
}

func TestUploadsAtOnce(t *testing.T) {
	s := newServer(t)
	// More uploads are open than can stay open between chunks. The oldest are closed, and can still be resumed.
	const n = 40
	locs := make([]string, n)
	for i := range locs {
		locs[i] = s.answer(t, http.StatusAccepted, "", http.MethodPost, "/v2/app/blobs/uploads/", "").Header.Get("Location")
	}
	done := make(chan error, n)
	for round := range 3 {
		for i, loc := range locs {
			go func() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, s.URL+loc, strings.NewReader(fmt.Sprint(i, round)))
				if err == nil {
					var resp *http.Response
					if resp, err = s.Client().Do(req); err == nil {
						resp.Body.Close()
						if resp.StatusCode != http.StatusAccepted {
							err = fmt.Errorf("status %d", resp.StatusCode)
						}
					}
				}
				done <- err
			}()
		}
		for range locs {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, loc := range locs {
		d := digest.FromString(fmt.Sprint(i, 0) + fmt.Sprint(i, 1) + fmt.Sprint(i, 2)).String()
		s.answer(t, http.StatusCreated, "", http.MethodPut, loc+"?digest="+d, "")
	}
}

func TestDockerTypesAndForeignNames(t *testing.T) {
	s := newServer(t)
	img := mutate.ConfigMediaType(mutate.MediaType(newImage(t, runtime.GOARCH, "x"), types.DockerManifestSchema2), types.DockerConfigJSON)
	s.push(t, "docker.io/library/nginx:1", img)
	s.collect(t)
	record, err := s.stores.Images.Get(inStore(t.Context()), "docker.io/library/nginx:1")
	if err != nil || record.Target.Digest.String() != digestOf(t, img) {
		t.Errorf("record: got %+v, %v", record, err)
	}
	if got, err := s.images.Resolve(t.Context(), "docker.io/library/nginx:1"); err != nil || got.Size == 0 {
		t.Errorf("resolve: got %+v, %v", got, err)
	}
	if repos, err := remote.Catalog(t.Context(), s.ref(t, "x").Context().Registry); err != nil || !slices.Equal(repos, []string{"docker.io/library/nginx"}) {
		t.Errorf("catalog: got %v, %v", repos, err)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// FuzzManifest puts arbitrary bytes as a manifest. The response must have the protocol's form, and the list of images
// must still work.
func FuzzManifest(f *testing.F) {
	s := newServer(f)
	img := newImage(f, "amd64", "layer")
	s.push(f, "app:1", img)
	raw, err := img.RawManifest()
	if err != nil {
		f.Fatal(err)
	}
	index, err := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img}).RawManifest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, "application/vnd.oci.image.manifest.v1+json")
	f.Add(index, "application/vnd.oci.image.index.v1+json")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"size":-1}]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"config":{"size":9223372036854775808},"layers":[{}]}`), "text/plain")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v2/app/manifests/fuzz", bytes.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		s.registry.ServeHTTP(w, req)
		if w.Code != http.StatusCreated && (w.Code >= 500 || !bytes.Contains(w.Body.Bytes(), []byte(`{"errors":[{"code":"`))) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		list, err := s.images.List(t.Context())
		if err != nil {
			t.Error(err)
		}
		if named := slices.ContainsFunc(list, func(image oci.Summary) bool { return image.Name == "app:fuzz" }); named != (w.Code == http.StatusCreated) {
			t.Errorf("got %d, and in the list: %v", w.Code, named)
		}
		if err := s.images.Delete(t.Context(), "app:fuzz"); err != nil && !errors.Is(err, oci.ErrNotFound) {
			t.Error(err)
		}
	})
}
