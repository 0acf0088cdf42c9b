package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// nodeFile is what a broker knows of itself and its cluster before it has asked anybody: meta/node.json of the first
// directory. docs/format/node.md describes it.
type nodeFile struct {
	Version int          `json:"version"`
	Node    ident.Broker `json:"node"`
	// Internal is the internal address that others were told, "" if there was none.
	Internal string       `json:"internal,omitempty"`
	Members  []nodeMember `json:"members,omitempty"`
	// Etcd are the endpoints of the map's store, for a broker that has no member of it: HOST:PORT are internal listeners
	// of brokers, URLs an external etcd. Empty: the voters' among Members.
	Etcd []string `json:"etcd,omitempty"`
	// Level is the cluster's feature level as it was last seen, 0 if it never was.
	Level queuemapper.Level `json:"level,omitempty"`
}

// nodeMember is a broker of the cluster as it was when the file was written.
type nodeMember struct {
	Broker  ident.Broker `json:"broker"`
	Address string       `json:"address"`
	Voter   bool         `json:"voter,omitempty"`
}

const nodeFileVersion = 1

func nodeFileName(dir string) string { return filepath.Join(dir, "meta", "node.json") }

// readNodeFile reads the file of a data directory; nil if there is none.
func readNodeFile(dir string) (*nodeFile, error) {
	text, err := os.ReadFile(nodeFileName(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read node file: %w", err)
	}
	f, err := parseNodeFile(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", nodeFileName(dir), err)
	}
	return f, nil
}

func parseNodeFile(text []byte) (*nodeFile, error) {
	var f nodeFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if f.Version != nodeFileVersion {
		return nil, fmt.Errorf("it has version %d, this build knows %d", f.Version, nodeFileVersion)
	}
	if f.Level > 0 {
		if err := f.Level.Check(); err != nil {
			return nil, err
		}
	}
	return &f, nil
}

// write replaces the file, durably and in one step.
func (f nodeFile) write(dir string) error {
	f.Version = nodeFileVersion
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	name := nodeFileName(dir)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write node file: %w", err)
	}
	if err := writeSynced(name+".new", append(text, '\n')); err != nil {
		return fmt.Errorf("write node file: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write node file: %w", err)
	}
	for _, d := range []string{filepath.Dir(name), dir} {
		if err := syncDir(d); err != nil {
			return fmt.Errorf("write node file: %w", err)
		}
	}
	return nil
}

func writeSynced(name string, text []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
