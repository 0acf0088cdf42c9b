package commitlog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

const (
	metaName     = "meta"
	identityName = "identity"
)

// Identity is what is written on a log's own disk when it is formatted: which log it is,
// and of which cluster.
type Identity struct {
	Log       ident.Log
	ClusterID string
}

// ReadIdentity reads the identity of the log in a data directory without opening the log.
// Nothing is written. Without an identity the error is fs.ErrNotExist; of a damaged one it
// is ErrCorrupt and names the file, of one that a newer build wrote ErrVersion. A nil fsys
// is the real one.
func ReadIdentity(fsys vfs.FS, dir string) (Identity, error) {
	if fsys == nil {
		fsys = vfs.OS()
	}
	name := filepath.Join(dir, metaName, identityName)
	var id Identity
	b, err := readSmall(fsys, name, maxIdentityBytes+1)
	if err == nil {
		id, err = parseIdentity(string(b))
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read identity %s: %w", name, err)
	}
	return id, nil
}

// maxIdentityBytes bounds the text; a cluster id of nothing but bytes that must be escaped fits.
const maxIdentityBytes = 2048

// identityFormat is all but the checksum line: docs/format/directory.md.
const identityFormat = "skein log\nversion %d\ncluster %q\nlog %s\n"

// appendIdentity appends the text of an identity.
func appendIdentity(dst []byte, id Identity) []byte {
	at := len(dst)
	dst = fmt.Appendf(dst, identityFormat, formatVersion, id.ClusterID, id.Log)
	return fmt.Appendf(dst, identitySum, crc32.Checksum(dst[at:], castagnoli))
}

// identitySum is the last line: a CRC-32C of the lines before.
const (
	identitySum      = "crc %08x\n"
	identitySumBytes = len("crc ") + 8 + len("\n")
)

// parseIdentity is the inverse of appendIdentity, to the byte. It also reads what older builds wrote, which has no
// checksum. The error is ErrVersion of a text that a newer build wrote, else ErrCorrupt.
func parseIdentity(text string) (id Identity, err error) {
	body, sum := text, ""
	if at := len(text) - identitySumBytes; at > 0 && strings.HasPrefix(text[at:], "crc ") {
		body, sum = text[:at], text[at:]
	}
	if want := fmt.Sprintf(identitySum, crc32.Checksum([]byte(body), castagnoli)); sum != "" && sum != want {
		return Identity{}, fmt.Errorf("%w: %q, the text has %q", ErrCorrupt, sum, want)
	}
	var version int
	if n, _ := fmt.Sscanf(body, "skein log\nversion %d\n", &version); n == 1 && version > formatVersion && sum != "" {
		return Identity{}, fmt.Errorf("version %d, this build knows %d: %w", version, formatVersion, ErrVersion)
	}
	var log string
	if _, err := fmt.Sscanf(body, identityFormat, &version, &id.ClusterID, &log); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if id.Log, err = ident.ParseLog(log); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if fmt.Sprintf(identityFormat, formatVersion, id.ClusterID, id.Log) != body {
		return Identity{}, fmt.Errorf("%w: it is not as this build, or an older one, writes it", ErrCorrupt)
	}
	return id, nil
}

// openIdentity compares the identity on the disk with the configuration, or writes a
// new one on an empty disk. A disk that holds log files but no identity is refused.
func (l *Log) openIdentity() error {
	id, err := ReadIdentity(l.fs, l.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return l.format(filepath.Join(l.metaDir, identityName))
	}
	if err != nil {
		return err
	}
	if l.cfg.ClusterID != "" && l.cfg.ClusterID != id.ClusterID {
		return fmt.Errorf("identity: the disk belongs to cluster %q, not to %q", id.ClusterID, l.cfg.ClusterID)
	}
	l.id, l.cluster = id.Log, id.ClusterID
	return nil
}

// format writes the identity of a new log, durably and in one step.
func (l *Log) format(name string) error {
	names, err := l.fs.List(l.logDir)
	if err != nil {
		return fmt.Errorf("list %s: %w", l.logDir, err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, logSuffix) || strings.HasSuffix(n, sortedSuffix) {
			return fmt.Errorf("identity is missing, but there are log files: %w", ErrCorrupt)
		}
	}
	if _, err := rand.Read(l.id[:]); err != nil {
		return fmt.Errorf("make log id: %w", err)
	}
	l.id[6], l.id[8] = l.id[6]&0x0f|0x40, l.id[8]&0x3f|0x80
	l.cluster = l.cfg.ClusterID
	text := appendIdentity(nil, Identity{Log: l.id, ClusterID: l.cluster})
	err = writeSmall(l.fs, name, text)
	for _, dir := range []string{l.logDir, l.cfg.Dir, filepath.Dir(l.cfg.Dir)} {
		if err == nil {
			err = l.fs.SyncDir(dir)
		}
	}
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	l.recovered.Fresh = true
	return nil
}
