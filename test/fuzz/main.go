// Command fuzz fuzzes every fuzz target of the module for a time each, one after the other.
//
// It ends each with an interrupt instead of `go test -fuzztime 1m`, whose own deadline sometimes fails a target in which nothing is
// wrong ("context deadline exceeded", golang.org/issue/75804).
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	each := flag.Duration("time", time.Minute, "how long each target is fuzzed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := fuzzAll(ctx, ".", *each, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pkg is what `go list` says of a package.
type pkg struct {
	Dir, ImportPath           string
	TestGoFiles, XTestGoFiles []string
}

// fuzzAll fuzzes the targets of the module in a directory, and stops at the first that fails.
func fuzzAll(ctx context.Context, dir string, each time.Duration, out io.Writer) error {
	goTool := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Stderr = dir, os.Stderr
		return cmd.Output()
	}
	cache, err := goTool("env", "GOCACHE")
	if err != nil {
		return fmt.Errorf("find cache: %w", err)
	}
	corpus := filepath.Join(strings.TrimSpace(string(cache)), "fuzz") // where `go test -fuzz` keeps what it found
	list, err := goTool("list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles", "./...")
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	for dec := json.NewDecoder(bytes.NewReader(list)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			return fmt.Errorf("list packages: %w", err)
		}
		if err := p.fuzz(ctx, each, corpus, out); err != nil {
			return fmt.Errorf("%s: %w", p.ImportPath, err)
		}
	}
	return nil
}

var target = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// targets reads the names of a package's fuzz targets.
func (p *pkg) targets() (names []string, err error) {
	for _, list := range [][]string{p.TestGoFiles, p.XTestGoFiles} {
		for _, file := range list {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			for _, m := range target.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	return names, nil
}

// fuzz builds a package's test once and fuzzes each of its targets.
func (p *pkg) fuzz(ctx context.Context, each time.Duration, corpus string, out io.Writer) (err error) {
	names, err := p.targets()
	if err != nil || len(names) == 0 {
		return err
	}
	dir, err := os.MkdirTemp("", "fuzz-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin := filepath.Join(dir, "fuzz.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=.", "-o", bin, ".")
	build.Dir, build.Stdout, build.Stderr = p.Dir, out, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	for _, name := range names {
		fmt.Fprintln(out, p.ImportPath, name)
		if err := p.run(ctx, each, out, bin, "-test.run=^$", "-test.fuzz=^"+name+"$", "-test.fuzzcachedir="+filepath.Join(corpus, p.ImportPath)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// run lets one target run for a time. An interrupted one ends well, unless it found something.
func (p *pkg) run(ctx context.Context, each time.Duration, out io.Writer, bin string, args ...string) error {
	timed, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	cmd := exec.CommandContext(timed, bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute // it may be minimizing what it found
	err := cmd.Run()
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) { // it ended well
		return nil
	}
	return err
}
