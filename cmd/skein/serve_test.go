package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// skein runs a command line in this process.
func skein(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&err)
	code = run(t.Context(), root, args)
	return code, out.String(), err.String()
}

// TestRefusals: what is wrong is told at once, with exit code 2, and nothing is touched.
func TestRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := os.MkdirAll("foreign", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("foreign/letter.txt", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const free = "127.0.0.1:0"
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"ports":         {[]string{"--data", "new", "--listen", taken.Addr().String(), "--http", taken.Addr().String()}, []string{"listen and http are both"}},
		"port in use":   {[]string{"--data", "new", "--listen", taken.Addr().String(), "--http", free}, []string{"listen:", "in use"}},
		"foreign":       {[]string{"--data", "foreign", "--listen", taken.Addr().String(), "--http", free}, []string{"letter.txt", "in use"}},
		"unspecified":   {[]string{"--data", "new", "--listen", ":0", "--http", free}, []string{"--advertise"}},
		"unknown key":   {[]string{"--data", "new", "--set", "no.such.key=1", "--set", "num.partitions=x"}, []string{"no.such.key", "num.partitions"}},
		"unknown flag":  {[]string{"--nonsense"}, []string{"nonsense"}},
		"stray word":    {[]string{"word"}, []string{"word"}},
		"config absent": {[]string{"--config", "none.yaml"}, []string{"none.yaml"}},
	} {
		code, _, stderr := skein(t, append([]string{"serve"}, c.args...)...)
		if code != exitUsage {
			t.Errorf("%s: exit %d, want %d: %s", name, code, exitUsage, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: stderr does not say %q: %s", name, want, stderr)
			}
		}
	}
	if entries, _ := filepath.Glob("*"); len(entries) != 1 {
		t.Errorf("something was made: %v", entries)
	}
	if code, _, _ := skein(t, "frobnicate"); code != exitUsage {
		t.Errorf("unknown command: exit %d", code)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	unlock, err := lockDirs([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if _, err := lockDirs([]string{dir, other}); err == nil || !strings.Contains(err.Error(), "process") {
		t.Errorf("a second lock: %v", err)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a directory was made although the lock failed")
	}
	unlock()
	unlock, err = lockDirs([]string{dir, other})
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestHelp: every command has an example and an explanation.
func TestHelp(t *testing.T) {
	for _, c := range rootCommand().Commands() {
		list := c.Commands()
		if len(list) == 0 {
			list = append(list, c)
		}
		for _, c := range list {
			if c.Name() == "help" || c.Name() == "completion" {
				continue
			}
			if c.Short == "" || c.Example == "" {
				t.Errorf("%s: no explanation or no example", c.CommandPath())
			}
		}
	}
}
