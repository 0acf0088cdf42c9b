package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/bench"
)

// benchBare is what `bench compare` runs beside brokers, as a process of its own.
func benchBare() *cobra.Command {
	var dir, listen string
	cmd := &cobra.Command{
		Use:    "bare",
		Hidden: true,
		Short:  "Serve the writes of the benchmark with the least that a durable broker does",
		Long: `Takes the requests of "skein bench produce", compares the checksums of their batches, writes these to a
file of 1 GiB that was wholly written before, over and over, past the page cache where the file system
lets it, and acknowledges what is durable. There are no topics, and nothing can be read. It prints one
line that begins with "ready" when it serves. The file has no name and is gone with the process.`,
		Example: "  skein bench bare --data /disk1 --listen 127.0.0.1:9092",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if info, err := os.Stat(dir); err != nil {
				return usageError{fmt.Errorf("data: %w", err)}
			} else if !info.IsDir() {
				return usageError{fmt.Errorf("data: %s is no directory", dir)}
			}
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return usageError{fmt.Errorf("listen: %w", err)}
			}
			return serveBare(cmd.Context(), dir, ln, cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&dir, "data", ".", "the directory whose disk is written")
	fl.StringVar(&listen, "listen", "127.0.0.1:0", "address")
	return cmd
}

func serveBare(ctx context.Context, dir string, ln net.Listener, out io.Writer) error {
	b, err := bench.OpenBare(ctx, bench.BareConfig{Dir: dir})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	fmt.Fprintf(out, "ready listen=%s direct=%t\n", ln.Addr(), b.Direct())
	return errors.Join(b.Serve(ctx, ln), b.Close())
}
