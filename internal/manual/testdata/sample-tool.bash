# bash completion for sample-tool
# Made from the program's own definitions.

_sample_tool()
{
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= words= i
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} != -* ]] && command=${COMP_WORDS[i]} && break
	done
	# --flag=value is three words.
	if [[ $current == = ]]; then
		current=
	elif [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $command in
	'')
		words='start usage help stop ask watch'
		[[ $current == -* ]] && words='--help -h --version -v '
		;;
	start)
		case $before in
		*) [[ $current == -* ]] && words='--help -h ' ;;
		esac
		;;
	usage | help)
		case $before in
		*) [[ $current == -* ]] && words='--help -h ' ;;
		esac
		;;
	stop)
		case $before in
		*) [[ $current == -* ]] && words='--help -h ' ;;
		esac
		;;
	ask)
		case $before in
		--to)
			words=''
			;;
		--file)
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$current")
			return
			;;
		--buckets)
			words=''
			;;
		--ports)
			words=''
			;;
		--colour)
			words='red green'
			;;
		--mac-mode)
			words='multicast igmp unicast'
			;;
		--nic)
			words=$(ls /sys/class/net)
			;;
		*) [[ $current == -* ]] && words='--to --file --json -j --buckets --ports --colour --mac-mode --nic --help -h ' ;;
		esac
		;;
	watch)
		case $before in
		*) [[ $current == -* ]] && words='--help -h ' ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _sample_tool sample-tool
