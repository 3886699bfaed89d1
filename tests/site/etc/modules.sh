# shellcheck shell=sh
# Stands in for Environment Modules and Lmod: like theirs, a shell function that login shells get
# from /etc/profile.d. `module load NAME/VERSION` sets MODULE_NAME=VERSION; unknown names fail.
module() {
    case "$1:$2" in
        load:python/* | load:cuda/* | load:apptainer/*)
            LOADEDMODULES=${LOADEDMODULES:+$LOADEDMODULES:}$2
            export LOADEDMODULES "MODULE_${2%%/*}=${2#*/}"
            ;;
        purge:*) unset LOADEDMODULES MODULE_python MODULE_cuda MODULE_apptainer ;;
        list:*) echo "${LOADEDMODULES:-No modules loaded}" >&2 ;;
        *)
            echo "module: cannot $1 '$2'" >&2
            return 1
            ;;
    esac
}
