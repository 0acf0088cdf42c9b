package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// writeWorkers installs what test/cluster drives beside franz-go and writes their commands, by name, as JSON.
func (in *installer) writeWorkers(ctx context.Context, file string) error {
	java, err := in.javaClasses(ctx, "4.3.0", "Worker")
	if err != nil {
		return fmt.Errorf("java worker: %w", err)
	}
	python, err := in.python(ctx, "worker")
	if err != nil {
		return fmt.Errorf("python worker: %w", err)
	}
	python = append(slices.Clone(python[:len(python)-2]), filepath.Join(in.src, "python", "worker.py"))
	data, err := json.MarshalIndent(map[string][]string{"java-4.3.0": java, "librdkafka": python}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
