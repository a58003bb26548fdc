package proxy

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteText prints the results as tables.
func (r *Result) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%d CPUs, %d rounds of %.1f s a proxy, medians. CPU is what the kernel has charged to the proxy's processes.\n\n", r.CPUs, r.Rounds, r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "1 KiB, keep-alive\tCPU/request at %d\tat 1\trequests/s\tp50\tp99\tp50 at 1\tadded at 1\tmemory\t\n", r.Connections)
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%.1f µs\t%.1f µs\t%.0f\t%.2f ms\t%.2f ms\t%.0f µs\t%+.0f µs\t%s\t\n",
			row.Name, row.CPU, row.CPUOne, row.PerSecond, row.P50, row.P99, row.P50One*1000, row.Added, mib(row.Memory))
	}
	t.Flush()
	if r.OverNginx > 0 {
		fmt.Fprintf(w, "penstock over nginx: %.2fx CPU a request\n", r.OverNginx)
	}
	if r.OverGo > 0 {
		fmt.Fprintf(w, "penstock over ReverseProxy: %.2fx CPU a request\n", r.OverGo)
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "events, open connections\tevent delay p50\tp99\topen streams\tmemory\tidle connections\tmemory\tfailed\t\n")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%.2f ms\t%.2f ms\t%d\t%s\t%d\t%s\t%d\t\n",
			row.Name, row.EventDelay, row.EventDelayP99, row.StreamsOpen, mib(row.StreamsMemory), row.IdleOpen, mib(row.IdleMemory), row.Failed)
	}
	t.Flush()
	if r.Transfer > 0 {
		fmt.Fprintln(w)
		t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "body of %.1f GB\tup\tCPU/GB\tpeak memory\tdown\tCPU/GB\tpeak memory\t\n", float64(r.Transfer)/1e9)
		for _, row := range r.Rows {
			fmt.Fprintf(t, "%s\t%.0f MB/s\t%.2f s\t%s\t%.0f MB/s\t%.2f s\t%s\t\n",
				row.Name, row.UploadRate, row.UploadCPU, mib(row.UploadMemory), row.DownloadRate, row.DownloadCPU, mib(row.DownloadMemory))
		}
		t.Flush()
	}
	fmt.Fprintln(w)
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s: %s\n", row.Name, row.Version)
	}
	for _, m := range r.Missing {
		fmt.Fprintln(w, "not measured:", m)
	}
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
