// Package metrictest holds the names and kinds of a package's metrics to a golden list: dashboards and alarms depend on them.
package metrictest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// File is the list, below the directory of the package under test: a line "name kind" for each metric.
const File = "testdata/golden/metrics.txt"

// Check compares what reg gathers with the list. Of a metric with labels one instrument must have been used. With
// SKEIN_REWRITE_METRICS in the environment it writes the list anew.
func Check(t testing.TB, reg prometheus.Gatherer) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		b.WriteString(f.GetName() + " " + strings.ToLower(f.GetType().String()) + "\n")
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
	if os.Getenv("SKEIN_REWRITE_METRICS") != "" {
		if err := os.MkdirAll(filepath.Dir(File), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(File, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(File)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("metrics have changed (SKEIN_REWRITE_METRICS=1 writes the list anew): got\n%swant\n%s", b.String(), want)
	}
}
