package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands are all commands of the tree.
func commands(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		list = append(list, commands(sub)...)
	}
	return list
}

// TestHelp: every command has an explanation, and examples that it would take.
func TestHelp(t *testing.T) {
	for _, c := range commands(rootCommand()) {
		if slices.Contains(strings.Fields(c.CommandPath()), "completion") || c.Name() == "help" { // cobra's
			continue
		}
		if c.Short == "" || c.Example == "" && !c.HasSubCommands() {
			t.Errorf("%s: no explanation or no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(line, "|")
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "skein" {
				t.Errorf("%s: example %q runs something else", c.CommandPath(), line)
				continue
			}
			found, rest, err := rootCommand().Find(words[1:])
			if err == nil {
				if err = found.ParseFlags(rest); err == nil {
					err = found.ValidateArgs(found.Flags().Args())
				}
			}
			if err != nil {
				t.Errorf("%s: example %q: %v", c.CommandPath(), line, err)
			}
		}
	}
}

// TestUnknownCommands: a word that is no command of those that a command groups is an error, wherever it stands.
func TestUnknownCommands(t *testing.T) {
	for _, c := range commands(rootCommand()) {
		if !c.HasSubCommands() {
			continue
		}
		for _, help := range [][]string{nil, {"help"}} {
			code, stdout, stderr := skein(t, slices.Concat(help, strings.Fields(c.CommandPath())[1:], []string{"nosuch"})...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, `unknown command "nosuch"`) {
				t.Errorf("%s %s nosuch: exit %d: %s%s", help, c.CommandPath(), code, stdout, stderr)
			}
		}
		if c.Name() == "dev" || c.Name() == "balance" { // they do something themselves
			continue
		}
		if code, stdout, _ := skein(t, strings.Fields(c.CommandPath())[1:]...); code != exitOK || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%s alone: exit %d: %s", c.CommandPath(), code, stdout)
		}
	}
	if _, _, stderr := skein(t, "topic", "lst"); !strings.Contains(stderr, "did you mean list?") {
		t.Errorf("no suggestion: %s", stderr)
	}
	if code, stdout, _ := skein(t, "help", "topic", "list"); code != exitOK || !strings.Contains(stdout, "List topics") {
		t.Errorf("help of a command: exit %d: %s", code, stdout)
	}
}

// TestBadValues: values that are wrong are refused with exit code 2, by the command or by the broker.
func TestBadValues(t *testing.T) {
	refusing := func(code int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "to: log is not open", code) }))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	bad, conflict := refusing(http.StatusBadRequest), refusing(http.StatusConflict)
	const log = "7f1c0e52-0000-4000-8000-000000000000"
	for _, c := range []struct {
		line string
		code int
		want string
	}{
		{"map move --group 3 --to x --http " + conflict, exitUsage, "--to"},
		{"map move --all --from x --to " + log + " --http " + conflict, exitUsage, "--from"},
		{"map move --all --to " + log + " --http " + conflict, exitUsage, "--from"},
		{"map move --group 3 --to " + log + " --http " + bad, exitUsage, "not open"},
		{"map move --group 3 --to " + log + " --http " + conflict, exitFailed, "not open"},
		{"map split orders:7 --http " + conflict, exitUsage, "--group"},
		{"topic alter orders -p -1", exitUsage, "partitions"},
		{"topic alter orders -p 0", exitUsage, "partitions"},
		{"topic create orders -p 0", exitUsage, "partitions"},
	} {
		code, _, stderr := skein(t, strings.Fields(c.line)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, want %d: %s", c.line, code, c.code, stderr)
		}
	}
}
