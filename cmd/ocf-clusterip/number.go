package main

import (
	"errors"
	"flag"
	"strconv"

	"github.com/urfave/cli/v2"
)

// A numberFlag is a number in decimals. The library would take 010 for 8.
type numberFlag struct{ *cli.UintFlag }

// Apply implements cli.Flag.
func (f *numberFlag) Apply(set *flag.FlagSet) error {
	if err := f.UintFlag.Apply(flag.NewFlagSet("", flag.ContinueOnError)); err != nil { // for what help says
		return err
	}
	for _, name := range f.Names() {
		set.Var(&number{f.Value}, name, f.Usage)
	}
	return nil
}

// A number is the value of such a flag.
type number struct{ value uint }

// Set implements flag.Value.
func (n *number) Set(text string) error {
	value, err := strconv.ParseUint(text, 10, strconv.IntSize)
	if err != nil {
		return errors.New("not a number such as 8")
	}
	n.value = uint(value)
	return nil
}

// String implements flag.Value.
func (n *number) String() string { return strconv.FormatUint(uint64(n.value), 10) }
