package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testFunc  = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
	testNamed = regexp.MustCompile(`\bTest[A-Z]\w*…?`) // with the dots: all that begin so
)

// TestDocumentsNameTests: a test that a document names as its proof is there.
func TestDocumentsNameTests(t *testing.T) {
	there, named := map[string]bool{}, map[string]string{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if name := d.Name(); err == nil && (name == "node_modules" || strings.HasPrefix(name, ".") && strings.Trim(name, ".") != "") {
				return fs.SkipDir
			}
			return err
		}
		code, doc := strings.HasSuffix(path, "_test.go"), strings.HasSuffix(path, ".md")
		if !code && !doc {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if code {
			for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
				there[m[1]] = true
			}
		} else {
			for _, name := range testNamed.FindAllString(string(text), -1) {
				named[name] = path
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(named) < 20 || len(there) < 500 {
		t.Fatalf("%d tests named, %d there: that is not this repository", len(named), len(there))
	}
	for name, path := range named {
		beginning, dots := strings.CutSuffix(name, "…")
		if !there[name] && !(dots && begins(there, beginning)) {
			t.Errorf("%s names %s, which is not there", path, name)
		}
	}
}

func begins(names map[string]bool, with string) bool {
	for name := range names {
		if strings.HasPrefix(name, with) {
			return true
		}
	}
	return false
}
