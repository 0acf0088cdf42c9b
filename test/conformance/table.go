package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

func count(results []result) (passed, failed int) {
	for _, r := range results {
		switch r.Status {
		case "pass":
			passed++
		case "n/a":
		default:
			failed++
		}
	}
	return passed, failed
}

var cellText = map[string]string{"pass": "ok", "fail": "FAIL", "n/a": "n/a"}

var noteText = map[string]string{"pass": "note", "fail": "FAIL", "n/a": "n/a"}

// printTable prints one line a client and one a tool, then why cells are not ok.
func printTable(out io.Writer, results []result, broker string) {
	fmt.Fprintf(out, "broker: %s\n\n", broker)
	type line struct {
		name, version string
		cells         map[string]string
		seconds       float64
		tool          bool
	}
	var lines []*line
	used := map[string]bool{}
	for _, r := range results {
		i := slices.IndexFunc(lines, func(l *line) bool { return l.name == r.Client })
		if i < 0 {
			i = len(lines)
			lines = append(lines, &line{name: r.Client, version: r.Version, cells: map[string]string{}, tool: r.tool})
		}
		lines[i].cells[r.Case] = cellText[r.Status]
		lines[i].seconds += r.Seconds
		used[r.Case] = true
	}
	columns := slices.DeleteFunc(slices.Clone(clientCases), func(c string) bool { return !used[c] })
	for _, tools := range []bool{false, true} {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		cols := columns
		title := "client"
		if tools {
			cols, title = []string{"tool"}, "Apache Kafka's tool"
		}
		rows := 0
		for _, l := range lines {
			if l.tool != tools {
				continue
			}
			if rows++; rows == 1 {
				fmt.Fprintf(w, "%s\tversion\t%s\tseconds\n", title, strings.Join(cols, "\t"))
			}
			fmt.Fprintf(w, "%s\t%s", l.name, l.version)
			for _, c := range cols {
				cell := l.cells[c]
				if cell == "" {
					cell = "-"
				}
				fmt.Fprintf(w, "\t%s", cell)
			}
			fmt.Fprintf(w, "\t%.1f\n", l.seconds)
		}
		w.Flush()
		if rows > 0 {
			fmt.Fprintln(out)
		}
	}
	for _, status := range []string{"n/a", "pass", "fail"} {
		for _, r := range results {
			if r.Status == status && r.Text != "" {
				fmt.Fprintf(out, "%s  %s %s: %s\n", noteText[status], r.Client, r.Case, oneLine(r.Text))
			}
		}
	}
}

// oneLine shortens a text for the table; the log has all of it.
func oneLine(s string) string {
	const limit = 400
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
