package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.HasAvailableSubCommands() {
		return usageError{unknownCommand(cmd, args[0])}
	}
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)}
	}
	return nil
}

// wantArgs asks for between least and most positional arguments (most < 0: any number).
func wantArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usageError{fmt.Errorf("usage: %s", cmd.UseLine())}
		}
		return nil
	}
}

// unknownCommand names a command that there is not, and those that it may have been meant for.
func unknownCommand(under *cobra.Command, name string) error {
	if under.SuggestionsMinimumDistance <= 0 {
		under.SuggestionsMinimumDistance = 2
	}
	hint := "see " + under.CommandPath() + " --help"
	if like := under.SuggestionsFor(name); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, ", ") + "?"
	}
	return fmt.Errorf("%s: unknown command %q; %s", under.CommandPath(), name, hint)
}

// refuseUnknown has every command that only groups others answer a word that is none of them with an error: cobra
// prints help and says that all went well.
func refuseUnknown(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args, cmd.RunE = noArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if cmd.Name() == "help" {
		cmd.Args = func(help *cobra.Command, words []string) error {
			about, rest, err := help.Root().Find(words)
			if err == nil && len(rest) > 0 && (about.HasSubCommands() || !about.HasParent()) {
				err = unknownCommand(about, rest[0])
			}
			if err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		refuseUnknown(c)
	}
}

// commandLine is the key under which a command's context holds the words that the process was started with.
type commandLine struct{}

// allFlagProblems is everything that is wrong with the flags of a command: pflag stops at the first. What is wrong
// is left out and the rest read again, so that afterwards the flags hold what could be read.
func allFlagProblems(cmd *cobra.Command, first error) error {
	args, _ := cmd.Context().Value(commandLine{}).([]string)
	_, args, err := cmd.Root().Find(args)
	problems := []error{first}
	for err == nil {
		i := slices.IndexFunc(args, func(arg string) bool { return isAbout(arg, problems[len(problems)-1]) })
		if i < 0 {
			break
		}
		args = slices.Delete(slices.Clone(args), i, i+1)
		next := cmd.ParseFlags(args)
		if next == nil {
			break
		}
		problems = append(problems, next)
	}
	return errors.Join(problems...)
}

// isAbout reports whether a word of the command line is the one that pflag complained of.
func isAbout(arg string, problem error) bool {
	word, _, _ := strings.Cut(arg, "=")
	switch e := problem.(type) {
	case *pflag.NotExistError:
		if short := e.GetSpecifiedShortnames(); short != "" {
			return strings.HasPrefix(arg, "-"+short)
		}
		return word == "--"+e.GetSpecifiedName()
	case *pflag.InvalidValueError:
		return word == "--"+e.GetFlag().Name
	case *pflag.ValueRequiredError:
		return word == "--"+e.GetSpecifiedName()
	case *pflag.InvalidSyntaxError:
		return arg == e.GetSpecifiedFlag()
	}
	return false
}
