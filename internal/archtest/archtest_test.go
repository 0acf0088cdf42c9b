// Package archtest keeps the shape of the tree: who may import whom, and how long a
// file or a function may be. The rules are DESIGN section 9 and CONTRIBUTING.md.
package archtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const mod = "github.com/skeinmq/skein/"

// mayImport lists, for each package or tree (a trailing /… covers what is below), which of our
// own packages its non-test code may import. THINK before adding to it: an arrow here is a
// promise to every reader. What is not listed may import nothing of ours.
var mayImport = map[string][]string{
	"protocol/…":           {"protocol/…"},
	"commitlog/…":          {"commitlog/…", "internal/ident", "internal/vfs", "internal/invariant"},
	"queuemapper/…":        {"queuemapper/…", "internal/ident", "internal/invariant"},
	"controller/…":         {"controller/…", "queuemapper", "internal/ident", "internal/invariant", "internal/peer/…", "internal/witness"},
	"broker/…":             {"broker/…", "protocol/…", "commitlog", "queuemapper", "controller", "internal/…"},
	"bench/…":              {"bench/…"},                 // it speaks the wire only
	"bench":                {"bench/…", "internal/vfs"}, // its bare server writes to the disk that brokers write to (ADR 26)
	"cmd/…":                {"…"},
	"internal/vfs/…":       {"internal/vfs/…", "internal/invariant"},
	"internal/peer/…":      {"internal/peer/…", "internal/ident", "queuemapper"},
	"internal/witness/…":   {"commitlog", "internal/ident", "internal/invariant", "internal/peer/…"},
	"internal/sim/…":       {"…"},
	"test/…":               {"test/…"},
	"internal/kconfig":     {},
	"internal/ident":       {},
	"internal/invariant/…": {},
}

const (
	longestFile  = 800 // lines; 500 is long already
	longFunction = 70
)

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func TestImports(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, mod)
		allowed, rule := rule(name)
		for _, imp := range p.Imports {
			ours, ok := strings.CutPrefix(imp, mod)
			if !ok || slices.ContainsFunc(allowed, func(pat string) bool { return matches(pat, ours) }) {
				continue
			}
			t.Errorf("%s must not import %s (rule %q allows %v): move the code, or argue for the arrow in an ADR", name, ours, rule, allowed)
		}
	}
}

// TestRulesCanFail proves that the checker sees an arrow that is not allowed.
func TestRulesCanFail(t *testing.T) {
	allowed, _ := rule("commitlog")
	if slices.ContainsFunc(allowed, func(pat string) bool { return matches(pat, "broker") }) {
		t.Error("commitlog may import broker: the rules hold nothing")
	}
	if allowed, _ := rule("bench/load"); len(allowed) != 1 {
		t.Errorf("bench/load may import %v, want bench only", allowed)
	}
	if allowed, _ := rule("bench"); !slices.Contains(allowed, "internal/vfs") || slices.Contains(allowed, "commitlog") {
		t.Errorf("bench may import %v, want what is below it and internal/vfs", allowed)
	}
}

func TestSizes(t *testing.T) {
	exceptions := readExceptions(t)
	used := map[string]bool{}
	complain := func(key, what string) {
		if exceptions[key] {
			used[key] = true
			return
		}
		t.Errorf("%s: split it, or give a reason in internal/archtest/exceptions.txt as %q", what, key)
	}
	for _, p := range listPackages(t) {
		for _, f := range p.GoFiles {
			path := filepath.Join(p.Dir, f)
			rel := strings.TrimPrefix(p.ImportPath, mod) + "/" + f
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.IsGenerated(file) {
				continue
			}
			if n := fset.File(file.Pos()).LineCount(); n > longestFile {
				complain(rel, fmt.Sprintf("%s has %d lines, more than %d", rel, n, longestFile))
			}
			for _, d := range file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > longFunction {
					key := rel + ":" + fn.Name.Name
					complain(key, fmt.Sprintf("%s has %d lines, more than %d", key, n, longFunction))
				}
			}
		}
	}
	for key := range exceptions {
		if !used[key] {
			t.Errorf("exceptions.txt: %s offends no more: remove it, the list may only shrink", key)
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range listPackages(t) {
		documented := false
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || file.Doc != nil
		}
		if !documented {
			t.Errorf("%s has no package comment attached: say what it is, promises and refuses to know", p.ImportPath)
		}
	}
}

var forbiddenNames = []string{"util", "utils", "common", "helpers", "helper", "misc", "types", "base", "manager", "impl"}

func TestNames(t *testing.T) {
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") && path != root(t) {
			return filepath.SkipDir
		}
		name := strings.TrimSuffix(d.Name(), ".go")
		if (d.IsDir() || strings.HasSuffix(d.Name(), ".go")) && slices.Contains(forbiddenNames, name) {
			t.Errorf("%s: a name that says nothing; name it for its subject", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rule is that of the package itself, else that of the smallest tree that it is in.
func rule(pkg string) (allowed []string, pattern string) {
	if list, ok := mayImport[pkg]; ok {
		return list, pkg
	}
	for pat, list := range mayImport {
		if matches(pat, pkg) && len(pat) > len(pattern) {
			allowed, pattern = list, pat
		}
	}
	return allowed, pattern
}

// matches: "a/…" is a and everything below it, "…" is everything.
func matches(pattern, pkg string) bool {
	if pattern == "…" {
		return true
	}
	tree, isTree := strings.CutSuffix(pattern, "/…")
	return pkg == tree || isTree && strings.HasPrefix(pkg, tree+"/")
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			pkgs = append(pkgs, p)
		}
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// readExceptions reads "path.go" or "path.go:Func", a space, and the reason, per line.
func readExceptions(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open("exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]bool{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			t.Errorf("exceptions.txt: %s has no reason", key)
		}
		out[key] = true
	}
	return out
}
