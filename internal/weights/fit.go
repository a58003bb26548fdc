package weights

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Model consists of the files of one format in one folder. The shards of a model are one Model.
type Model struct {
	// Path is the folder, or the file if there is only one.
	Path       string
	Format     Format
	Files      int
	Parameters int64
	Bytes      int64
	// Type is the type of most of its bytes.
	Type string
	// Problem is the reason why some files could not be read.
	Problem string
}

// Models groups the files of an image into models, largest first. A GGUF file is a separate model unless it is a shard,
// because a folder often contains a model in several sizes.
func Models(files []File) []Model {
	var models []Model
	kinds := map[int]tally{}
	at := map[string]int{}
	for _, f := range files {
		dir := path.Dir(f.Path)
		if (f.Format == GGUF || f.Format == ONNX) && !strings.Contains(f.Path, "-of-") {
			dir = f.Path
		}
		key := string(f.Format) + " " + dir
		i, known := at[key]
		if !known {
			i = len(models)
			at[key] = i
			kinds[i] = tally{}
			models = append(models, Model{Path: f.Path, Format: f.Format})
		} else {
			models[i].Path = dir
		}
		m := &models[i]
		m.Files++
		m.Parameters = addUpTo(m.Parameters, f.Parameters())
		m.Bytes = addUpTo(m.Bytes, f.Bytes())
		if f.Problem != "" && m.Problem == "" {
			m.Problem = path.Base(f.Path) + ": " + f.Problem
		}
		for _, p := range f.Parts {
			k := kinds[i][p.Type]
			if k == nil {
				k = &Part{Type: p.Type}
				kinds[i][p.Type] = k
			}
			k.Bytes = addUpTo(k.Bytes, p.Bytes)
		}
	}
	for i := range models {
		if parts := kinds[i].parts(); len(parts) > 0 {
			models[i].Type = parts[0].Type
		}
	}
	slices.SortStableFunc(models, func(a, b Model) int {
		if a.Bytes != b.Bytes {
			return compare(b.Bytes, a.Bytes)
		}
		return strings.Compare(a.Path, b.Path)
	})
	return models
}

func (m Model) String() string {
	return fmt.Sprintf("%s parameters in %s: %s of weights", Count(m.Parameters), m.Type, GiB(m.Bytes))
}

// Needs returns the memory needed to serve the model: the size of the weights plus 20 % for computations (EleutherAI,
// "Transformer Math 101": total inference memory is about 1.2 times that of the model).
func (m Model) Needs() int64 { return addUpTo(m.Bytes, m.Bytes/5) }

// Count formats a number of parameters as in names of models: 13.0 B, 110 M.
func Count(n int64) string {
	switch {
	case n >= 999_500_000:
		return fmt.Sprintf("%.1f B", float64(n)/1e9)
	case n >= 999_500:
		return fmt.Sprintf("%.0f M", float64(n)/1e6)
	case n >= 1000:
		return fmt.Sprintf("%.0f K", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

// GiB formats a number of bytes in GiB, or in MiB if it is less than 0.1 GiB.
func GiB(n int64) string {
	if n < 1<<30/10 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
