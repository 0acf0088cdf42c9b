// Command skein is the one binary of Skein: the broker (skein serve) and the tools
// around it. It holds flags and wiring only.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build (-ldflags -X main.version=…).
var version = "dev"

// Exit codes, documented in the help of the root command.
const (
	exitOK     = 0
	exitFailed = 1 // the work was tried and failed
	exitUsage  = 2 // nothing was touched: flags, values, configuration, directories
)

// usageError marks an error that was found before anything was touched.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	os.Exit(run(ctx, rootCommand(), os.Args[1:]))
}

func run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.ExecuteContext(context.WithValue(ctx, commandLine{}, args))
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(root.ErrOrStderr(), "skein: "+err.Error())
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "skein",
		Short: "A Kafka-compatible broker that winds every partition into one log",
		Long: `Skein is a Kafka-compatible broker: every partition that a broker owns is wound into one
commitlog on one disk, and a map says which run of a partition's offsets lies in which log.

Exit codes: 0 done; 1 tried and failed; 2 refused before anything was touched (commands, flags,
values, also those that a broker refuses, configuration, data directories).`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), versionCommand(), topicCommand(), groupCommand(), mapCommand(), brokerCommand(), clusterCommand(), balanceCommand(), logCommand(), metaCommand(), benchCommand(), devCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	refuseUnknown(root)
	return root
}

// build is what `skein version --json` prints.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Revision string `json:"revision,omitempty"`
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  skein version --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						b.Revision = s.Value
					}
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), b)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "skein %s %s %s\n", b.Version, b.Go, b.Platform)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
