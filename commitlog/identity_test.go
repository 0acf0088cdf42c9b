package commitlog

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

var goldenIdentity = Identity{ident.Log{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}, "Q2x1c3Rlcg \"x\"\n\x00\xff"}

// TestIdentityGolden: the bytes are a contract, with and without the checksum that older builds did not write.
func TestIdentityGolden(t *testing.T) {
	path := filepath.Join("testdata", "golden", "identity.txt")
	got := appendIdentity(nil, goldenIdentity)
	if os.Getenv("GOLDEN") == "rewrite" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, text := range []string{string(want), string(want[:len(want)-identitySumBytes])} {
		if id, err := parseIdentity(text); err != nil || id != goldenIdentity {
			t.Errorf("%q: %+v, %v", text, id, err)
		}
	}
	long := Identity{goldenIdentity.Log, strings.Repeat("\xff", maxClusterBytes)}
	if text := appendIdentity(nil, long); len(text) > maxIdentityBytes {
		t.Errorf("an identity of %d bytes is possible", len(text))
	}
}

// TestIdentityVersion: what a newer build wrote, which must keep the first two lines and the last, is not called damaged.
func TestIdentityVersion(t *testing.T) {
	text := "skein log\nversion 2\nsomething else\n"
	sum := fmt.Appendf(nil, identitySum, crc32.Checksum([]byte(text), castagnoli))
	if _, err := parseIdentity(text + string(sum)); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
		t.Errorf("version 2: %v", err)
	}
	for _, bad := range []string{"", "\n", "skein log\n", "skein log\nversion 1\n", text, string(sum), string(sum) + string(sum), text + "crc 00000000\n"} {
		if _, err := parseIdentity(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestIdentityFlips: any bit flipped, or anything cut off but the whole checksum, is found.
func TestIdentityFlips(t *testing.T) {
	text := appendIdentity(nil, goldenIdentity)
	for bit := range len(text) * 8 {
		bad := slices.Clone(text)
		bad[bit/8] ^= 1 << (bit % 8)
		if id, err := parseIdentity(string(bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d of byte %d: %+v, %v", bit%8, bit/8, id, err)
		}
	}
	for n := range text {
		if id, err := parseIdentity(string(text[:n])); !errors.Is(err, ErrCorrupt) && n != len(text)-identitySumBytes {
			t.Errorf("%d bytes: %+v, %v", n, id, err)
		}
	}
}

// TestIdentityDamage: a log with a damaged identity does not open, says which file it is about, and nothing on the disk
// is touched.
func TestIdentityDamage(t *testing.T) {
	mem := vfs.NewMem()
	if err := story(mem, newModel()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("data", metaName, identityName)
	st, err := mem.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, disk *vfs.Mem) {
		t.Helper()
		before := contents(t, disk)
		l, err := Open(context.Background(), modelConfig(disk))
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", what, err)
		}
		if !maps.Equal(before, contents(t, disk)) {
			t.Errorf("%s: the refused disk was written to", what)
		}
	}
	for bit := int64(0); bit < st.Size*8; bit += 41 { // TestIdentityFlips has them all
		disk := mem.Crash(1)
		flip(t, disk, name, bit)
		refused(fmt.Sprintf("bit %d of byte %d", bit%8, bit/8), disk)
	}
	for _, size := range []int64{0, 1, st.Size / 2, st.Size - 1} {
		disk := mem.Crash(1)
		f, err := disk.Open(name, vfs.OpenOptions{Write: true})
		if err == nil {
			err = errors.Join(f.Truncate(size), f.Sync(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		refused(fmt.Sprintf("%d bytes", size), disk)
	}
}

// contents are the files of a log's directories.
func contents(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, name := range diskFiles(t, fs) {
		out[name] = string(fileBytes(t, fs, name))
	}
	return out
}

// FuzzIdentity: what parses is what we would have written, with or without the checksum.
func FuzzIdentity(f *testing.F) {
	text := appendIdentity(nil, goldenIdentity)
	f.Add(string(text))
	f.Add(string(text[:len(text)-identitySumBytes]))
	f.Add("skein log\nversion 2\ncrc 00000000\n")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseIdentity(text)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		whole := string(appendIdentity(nil, id))
		if !slices.Contains([]string{whole, whole[:len(whole)-identitySumBytes]}, text) {
			t.Fatalf("%q is read as %q", text, whole)
		}
	})
}
