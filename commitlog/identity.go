package commitlog

import (
	"crypto/rand"
	"errors"
	"fmt"
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
// Nothing is written. Without an identity the error is fs.ErrNotExist. A nil fsys is the
// real one.
func ReadIdentity(fsys vfs.FS, dir string) (Identity, error) {
	if fsys == nil {
		fsys = vfs.OS()
	}
	f, err := fsys.Open(filepath.Join(dir, metaName, identityName), vfs.OpenOptions{})
	if err != nil {
		return Identity{}, fmt.Errorf("open identity: %w", err)
	}
	b := make([]byte, 1024)
	n, _ := f.ReadAt(b, 0) // io.EOF is expected, and a short text does not parse
	if err := f.Close(); err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	return parseIdentity(string(b[:n]))
}

func parseIdentity(text string) (id Identity, err error) {
	var version int
	var log string
	if _, err := fmt.Sscanf(text, "skein log\nversion %d\ncluster %q\nlog %s\n", &version, &id.ClusterID, &log); err != nil {
		return Identity{}, fmt.Errorf("read identity: %w: %w", ErrCorrupt, err)
	}
	if version != formatVersion {
		return Identity{}, fmt.Errorf("identity version %d: %w", version, ErrVersion)
	}
	if id.Log, err = ident.ParseLog(log); err != nil {
		return Identity{}, fmt.Errorf("read identity: %w: %w", ErrCorrupt, err)
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
		if strings.HasSuffix(n, logSuffix) {
			return fmt.Errorf("identity is missing, but there are log files: %w", ErrCorrupt)
		}
	}
	if _, err := rand.Read(l.id[:]); err != nil {
		return fmt.Errorf("make log id: %w", err)
	}
	l.id[6], l.id[8] = l.id[6]&0x0f|0x40, l.id[8]&0x3f|0x80
	l.cluster = l.cfg.ClusterID
	text := fmt.Sprintf("skein log\nversion %d\ncluster %q\nlog %s\n", formatVersion, l.cluster, l.id)
	f, err := l.fs.Open(name+".new", vfs.OpenOptions{Create: true, Truncate: true})
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = l.fs.Rename(name+".new", name)
	}
	for _, dir := range []string{l.metaDir, l.logDir, l.cfg.Dir, filepath.Dir(l.cfg.Dir)} {
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
