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
		"ports":       {[]string{"--data", "new", "--listen", taken.Addr().String(), "--http", taken.Addr().String()}, []string{"listen and http are both"}},
		"port in use": {[]string{"--data", "new", "--listen", taken.Addr().String(), "--http", free}, []string{"listen:", "in use"}},
		"foreign":     {[]string{"--data", "foreign", "--listen", taken.Addr().String(), "--http", free}, []string{"letter.txt", "in use"}},
		"unspecified": {[]string{"--data", "new", "--listen", ":0", "--http", free}, []string{"--advertise"}},
		"unknown key": {[]string{"--data", "new", "--set", "no.such.key=1", "--set", "num.partitions=x"}, []string{"no.such.key", "num.partitions"}},
		"all at once": {[]string{"--data", "foreign,foreign", "--listen", taken.Addr().String(), "--http", free, "--set", "no.such.key=1", "--node-id", "x", "--internal", taken.Addr().String()},
			[]string{"no.such.key", "letter.txt", "listen: listen tcp", "internal: listen tcp", `"x" is not a node id`}},
		"unreadable":   {[]string{"--data", ",", "--listen", taken.Addr().String(), "--http", "nowhere"}, []string{"empty entry", "in use", "nowhere"}},
		"unknown flag": {[]string{"--nonsense"}, []string{"nonsense"}},
		"stray word":   {[]string{"word", "--data", "new", "--listen", taken.Addr().String(), "--node-id", "x"}, []string{`"word"`, "in use", `"x" is not`}},
		"flags": {[]string{"--nonsense", "5", "-z", "--data", "new", "--set", "no.such.key=1", "--verbose=maybe", "--other=1", "---", "--node-id", "x", "--listen", taken.Addr().String(), "--http"},
			[]string{"unknown flag: --nonsense", "unknown shorthand flag: 'z'", "no.such.key", `"maybe"`, "unknown flag: --other", "---", `"x" is not`, "in use", "needs an argument: --http"}},
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
}

// TestAllProblemsOfADirectory: a setting that is wrong does not hide that the directory is another broker's, nor that
// it is in use, and is not taken for one that is.
func TestAllProblemsOfADirectory(t *testing.T) {
	dir := t.TempDir()
	if err := (nodeFile{Node: 4}).write(dir); err != nil {
		t.Fatal(err)
	}
	args := []string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "no.such.key=1"}
	code, _, stderr := skein(t, append(args, "--node-id=5")...)
	if code != exitUsage || !strings.Contains(stderr, "no.such.key") || !strings.Contains(stderr, "it is broker 4's, this is broker 5") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr = skein(t, append(args, "--node-id=x")...); code != exitUsage || strings.Contains(stderr, "broker 4's") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, pidName)); err == nil {
		t.Error("a lock file was made")
	}
	unlock, err := lockDirs([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, _, stderr = skein(t, append(args, "--node-id=4")...); !strings.Contains(stderr, "no.such.key") || !strings.Contains(stderr, "serves it") {
		t.Errorf("a directory in use: %s", stderr)
	}
}

// TestEtcdThatDoesNotAnswer: the error names it, and nothing is left of a directory that was not there before.
func TestEtcdThatDoesNotAnswer(t *testing.T) {
	const url = "http://127.0.0.1:1" // not one that was free a moment ago: another process may have been given it
	fresh, there := filepath.Join(t.TempDir(), "fresh"), t.TempDir()
	code, _, stderr := skein(t, "serve", "--data", fresh+","+there, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--etcd", url)
	if code != exitFailed || !strings.Contains(stderr, "etcd at "+url) || !strings.Contains(stderr, "refused") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, err := os.Stat(fresh); err == nil {
		t.Error("a directory was left")
	}
	if _, err := os.Stat(there); err != nil {
		t.Errorf("a directory that was there: %v", err)
	}
}

// TestRefusedLeavesLocks: a start that is refused leaves lock files as they were, and none where there was none.
func TestRefusedLeavesLocks(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, d := range []string{"served", "stopped", "empty"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("stopped/pid", []byte("4711\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockDirs([]string{"served"})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, args := range map[string][]string{
		"in use":      {"--data", "empty,stopped,served,new/deep"},
		"cannot make": {"--data", "empty,stopped,new/deep,/proc/nowhere/deep"},
		"bad value":   {"--data", "empty,stopped,new/deep", "--set", "num.partitions=x"},
		"port":        {"--data", "empty,stopped,new/deep", "--listen", taken.Addr().String()},
	} {
		if code, _, stderr := skein(t, append([]string{"serve", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"}, args...)...); code != exitUsage {
			t.Errorf("%s: exit %d: %s", name, code, stderr)
		}
		if text, err := os.ReadFile("stopped/pid"); err != nil || string(text) != "4711\n" {
			t.Errorf("%s: the lock file of a stopped broker: %q, %v", name, text, err)
		}
		if made, _ := filepath.Glob("new*"); len(made) > 0 {
			t.Errorf("%s: a directory was made", name)
		}
		if entries, _ := os.ReadDir("empty"); len(entries) > 0 {
			t.Errorf("%s: %s was made", name, entries[0].Name())
		}
	}
}

// TestLockFileThatIsGone: the lock file that a refused process took away locks nothing.
func TestLockFileThatIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), pidName)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !isAt(f, path) {
		t.Error("the file that was made is not there")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if isAt(f, path) {
		t.Error("a file that was removed is there")
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if isAt(f, path) {
		t.Error("another file is taken for it")
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
