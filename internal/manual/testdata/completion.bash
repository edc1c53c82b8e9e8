# bash completion for sample-tool
# Made from the program's own definitions.

_sample_tool_offer()
{
	local word
	for word; do
		[[ $word == "$current"* ]] && COMPREPLY+=("$word")
	done
}

_sample_tool()
{
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} != -* ]]; then
			command=${COMP_WORDS[i]}
			break
		fi
	done
	# --flag=value is three words.
	if [[ $current == = ]]; then
		current=
	elif [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $command:$before in
	ask:--to | ask:-t)
		return
		;;
	ask:--file)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	ask:--a-name-of-such-a-length)
		return
		;;
	ask:--buckets)
		return
		;;
	ask:--fail)
		return
		;;
	ask:--ports)
		return
		;;
	ask:--colour)
		_sample_tool_offer red green
		return
		;;
	ask:--mac-mode)
		_sample_tool_offer multicast igmp unicast
		return
		;;
	ask:--nic)
		mapfile -t COMPREPLY < <(cd /sys/class/net && compgen -f -- "$current")
		return
		;;
	esac
	case $command:$current in
	:-*) _sample_tool_offer --help -h --version -v ;;
	start:-*) _sample_tool_offer --help -h ;;
	stop:-*) _sample_tool_offer --help -h ;;
	ask:-*) _sample_tool_offer --to -t --file --a-name-of-such-a-length --json --buckets --fail --ports --colour --mac-mode --nic --help -h ;;
	watch:-*) _sample_tool_offer --help -h ;;
	help:-* | usage:-*) _sample_tool_offer --help -h ;;
	:*) _sample_tool_offer start stop ask watch help usage ;;
	esac
}

complete -F _sample_tool sample-tool
