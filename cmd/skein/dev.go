package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/cmd/skein/dev"
)

// devCache is what several brokers on a machine where people work keep in memory.
const devCache = "skein.log.cache.bytes=268435456"

func devCommand() *cobra.Command {
	var cfg dev.Config
	var sets []string
	var tui, verbose bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a small cluster on this machine, to look at failover with",
		Long: `Starts brokers as child processes on loopback: broker N keeps its data in DIR/N and its log in DIR/N.log, serves
Kafka clients at the base port + 10 (N-1), other brokers one port above and HTTP two ports above. It prints one line that
begins with "ready" for each broker when it serves. The children end with it, also when it is killed (on Linux). They do not see the
environment's SKEIN_… variables, most of which no two brokers can share: give them settings with --set. Each keeps 256 MiB
of recent records in memory unless that sets skein.log.cache.bytes.

It reads commands from standard input, and from "skein dev ctl" in another shell:

` + dev.Help + `
In a terminal, or with --tui, a table of the brokers is drawn above: state, placement groups owned, MB/s from clients, and
which generations changed hands.`,
		Example: "  skein dev --brokers 3\n  skein dev ctl kill 2\n  skein dev ctl start 2",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			cfg.Out = cmd.OutOrStdout()
			cfg.Command = func(s dev.Spec, voters []dev.Spec, alone bool) *exec.Cmd {
				args := dev.ServeArgs(s, voters, alone)
				for _, kv := range append([]string{devCache}, sets...) {
					args = append(args, "--set", kv)
				}
				if verbose {
					args = append(args, "--verbose")
				}
				return devChild(self, args)
			}
			cfg.Order = func(ctx context.Context, verb string, target, by dev.Spec) error {
				out, err := exec.CommandContext(ctx, self, "broker", verb, strconv.Itoa(target.ID), "--http", by.HTTP).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
				}
				return nil
			}
			s, err := dev.New(cfg)
			if err != nil {
				return usageError{err}
			}
			return runDev(cmd.Context(), s, tui || isTerminal(os.Stdout), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&cfg.Brokers, "brokers", 3, "brokers to start with; 1, 3 or 5 of them vote")
	cmd.PersistentFlags().StringVar(&cfg.Dir, "data", "./skein-dev", "where the brokers keep their data")
	fl.IntVar(&cfg.BasePort, "base-port", 9092, "Kafka port of broker 1")
	fl.DurationVar(&cfg.Patience, "patience", 45*time.Second, "how long a broker may take to stop before it is killed")
	fl.StringArrayVar(&sets, "set", nil, "a setting or Kafka broker config NAME=VALUE of every broker, repeatable")
	fl.BoolVar(&tui, "tui", false, "draw the table also when standard output is no terminal")
	fl.BoolVar(&verbose, "verbose", false, "brokers log what is not a problem, too")
	cmd.AddCommand(devCtl(&cfg.Dir))
	return cmd
}

// devChild is a broker of skein dev. It is told by flags what it is; the variables would go to all brokers alike, and
// most settings that a shell may have for a broker (addresses, peers, directories) are no two brokers'.
func devChild(self string, args []string) *exec.Cmd {
	child := exec.Command(self, args...)
	child.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, variable) })
	return child
}

// runDev runs the supervisor and what is around it; all of it ends with the supervisor.
func runDev(ctx context.Context, s *dev.Supervisor, tui bool, in io.Reader, out io.Writer) error {
	ln, err := s.ListenControl()
	if err != nil {
		return err
	}
	around, stop := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	g.Go(func() error {
		err := s.ServeControl(around, ln)
		if err != nil {
			fail(err)
		}
		return err
	})
	if tui {
		table := dev.NewTable(s, out)
		g.Go(func() error { table.Run(around); return nil })
	}
	go s.ReadCommands(around, in) // a read of a terminal cannot be interrupted: it ends with the process
	err = s.Run(failed)
	stop()
	return errors.Join(err, g.Wait())
}

func devCtl(dir *string) *cobra.Command {
	var timeout time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ctl COMMAND...",
		Short:   "Send a command to the skein dev that runs on --data",
		Long:    "Sends a command to the skein dev that runs on --data and waits until it is done:\n\n" + dev.Help,
		Example: "  skein dev ctl status --json\n  skein dev ctl kill 2\n  skein dev ctl roll",
		Args:    wantArgs(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && !slices.Equal(args, []string{"status"}) {
				return usageError{errors.New("--json is for status")}
			}
			if asJSON {
				args = append(args, "json")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			text, err := dev.Control(ctx, *dir, strings.Join(args, " "))
			if text != "" {
				fmt.Fprintln(cmd.OutOrStdout(), text)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this long")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON (status only)")
	return cmd
}
