#compdef sample-tool
# Made from the program's own definitions.

_sample_tool_commands() {
	local -a commands
	commands=(
		'start:begin'
		'usage:print this'
		'help:print this'
		'stop:end; it'\''s $(reboot) `harmless` [really]: \o/ *_*'
	)
	_describe -t commands-0 'Actions' commands
	commands=(
		'ask:ask for something'
		'watch:look again and again'
	)
	_describe -t commands-1 'Commands' commands
}

_sample_tool() {
	local curcontext=$curcontext state line
	typeset -A opt_args
	_arguments -C \
		'(--help -h)'--help'[show help]' \
		'(--help -h)'-h'[show help]' \
		'(--version -v)'--version'[print the version]' \
		'(--version -v)'-v'[print the version]' \
		'1:command:_sample_tool_commands' '*::argument:->arguments'
	[[ $state == arguments ]] || return
	case $words[1] in
	(start)
		_arguments \
		'(--help -h)'--help'[show help]' \
		'(--help -h)'-h'[show help]' \
		'*:no argument: '
		;;
	(usage|help)
		_arguments \
		'(--help -h)'--help'[show help]' \
		'(--help -h)'-h'[show help]' \
		'*:no argument: '
		;;
	(stop)
		_arguments \
		'(--help -h)'--help'[show help]' \
		'(--help -h)'-h'[show help]' \
		'*:no argument: '
		;;
	(ask)
		_arguments \
		'(--to)'--to='[the ADDRESS\[\:PORT\] to ask; it'\''s \\ $(reboot)]'':ADDRESS\[\:PORT\]:'' ' \
		'(--file)'--file='[read from FILE]'':FILE:'_files \
		'(--json -j)'--json'[write JSON]' \
		'(--json -j)'-j'[write JSON]' \
		'(--buckets)'--buckets='[how many there are, N]'':N:'' ' \
		'(--ports)'--ports='[NAME,... of the switch'\''s ports. Those to other switches, too]'':NAME,...:'' ' \
		'(--colour)'--colour='[of WHICH colour]'':WHICH:''(red green)' \
		'(--mac-mode)'--mac-mode='[VALUE of mac_mode]'':VALUE:''(multicast igmp unicast)' \
		'(--nic)'--nic='[VALUE of nic]'':VALUE:'_net_interfaces \
		'(--help -h)'--help'[show help]' \
		'(--help -h)'-h'[show help]' \
		'*:WHOM\[\:PORT\]...: '
		;;
	(watch)
		_arguments \
		'(--help -h)'--help'[show help]' \
		'(--help -h)'-h'[show help]' \
		'*:no argument: '
		;;
	esac
}

_sample_tool "$@"
