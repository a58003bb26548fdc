#!/bin/sh
# format1.sh: how format1.sql was made. It drives a server of format 1 (commit 25df476) with the fake runtime over its API,
# kills the server while a deletion waits for a replica, and dumps the database.
#
#	git worktree add /tmp/old 25df476 && cd /tmp/old && go build -o /tmp/penstock-old ./cmd/penstock
#	internal/store/testdata/format1.sh /tmp/penstock-old > internal/store/testdata/format1.sql
set -eu
penstock=$1
work=$(mktemp -d)
arm=127.0.0.1:18444
"$penstock" server --runtime fake --data "$work/data" --run "$work/run" --arm $arm --http 127.0.0.1:18080 --https 127.0.0.1:18443 >"$work/log" 2>&1 &
server=$!
trap 'kill -9 $server 2>/dev/null || true; rm -rf "$work"' EXIT
until [ -s "$work/data/token" ] && curl -sk -o "$work/out" "https://$arm/"; do sleep 0.2; done
token=$(cat "$work/data/token")
base=https://$arm/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/old/providers/Microsoft.App
env=/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/old/providers/Microsoft.App/managedEnvironments/kept

call() { # call METHOD PATH [BODY]
	code=$(curl -sk -X "$1" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -o "$work/out" -w '%{http_code}' ${3:+-d "$3"} "$base/$2?api-version=2025-01-01")
	case $code in 2*) ;; *) echo "$1 $2: $code: $(cat "$work/out")" >&2; exit 1 ;; esac
}
until_is() { # until_is PATH FIELD VALUE
	for _ in $(seq 200); do
		call GET "$1"
		[ "$(jq -r "$2" "$work/out")" = "$3" ] && return
		sleep 0.1
	done
	echo "$1: $2 does not become $3: $(cat "$work/out")" >&2
	exit 1
}
app() { # app IMAGE ENV MODE [MORE OF THE TEMPLATE]
	echo '{"location":"koreacentral","tags":{"team":"a"},"properties":{"environmentId":"'$env'","configuration":{"activeRevisionsMode":"'$3'","ingress":{"external":true,"targetPort":8080},"secrets":[{"name":"key","value":"s3cret"}]},"template":{"containers":[{"name":"main","image":"'$1'","env":['"$2"'],"resources":{"cpu":0.25,"memory":"0.5Gi"}}]'"${4:-}"'}}}'
}
job() { # job IMAGE ENV TRIGGER
	echo '{"location":"koreacentral","properties":{"environmentId":"'$env'","configuration":{"replicaTimeout":3600,"replicaRetryLimit":1,'"$3"'},"template":{"containers":[{"name":"main","image":"'$1'","env":['"$2"'],"resources":{"cpu":0.25,"memory":"0.5Gi"}}]}}}'
}
variable() { echo '{"name":"'$1'","value":"'$2'"}'; }
manual='"triggerType":"Manual","manualTriggerConfig":{"parallelism":1,"replicaCompletionCount":1}'

call PUT managedEnvironments/kept '{"location":"koreacentral","tags":{"penstock.retry":"none"},"properties":{}}'
until_is managedEnvironments/kept .properties.provisioningState Succeeded
call PUT managedEnvironments/kept/storages/models '{"properties":{"azureFile":{"accountName":"account","accountKey":"a2V5","shareName":"models","accessMode":"ReadOnly"}}}'

# single: three revisions, the first two retired by the platform.
for n in 1 2 3; do
	call PUT containerApps/single "$(app fake/echo "$(variable N $n)" Single)"
	until_is containerApps/single .properties.provisioningState Succeeded
	until_is containerApps/single '.properties.latestReadyRevisionName == .properties.latestRevisionName' true
done
# multiple: one of two is deactivated by its user, the other was restarted.
for n in one two; do
	call PUT containerApps/multiple "$(app fake/echo "$(variable N $n)" Multiple ',"revisionSuffix":"'$n'"')"
	until_is containerApps/multiple .properties.provisioningState Succeeded
done
call POST containerApps/multiple/revisions/multiple--one/deactivate
until_is containerApps/multiple/revisions/multiple--one .properties.runningState Stopped
call POST containerApps/multiple/revisions/multiple--two/restart
# stopped, failed, and one that is under way.
call PUT containerApps/stopped "$(app fake/echo "" Single)"
until_is containerApps/stopped .properties.provisioningState Succeeded
call POST containerApps/stopped/stop
until_is containerApps/stopped .properties.provisioningState Succeeded
call PUT containerApps/failed "$(app fake/exit "" Single)"
until_is containerApps/failed .properties.provisioningState Failed
call PUT containerApps/waiting "$(app fake/echo "" Single)"
until_is containerApps/waiting .properties.provisioningState Succeeded
call PUT containerApps/waiting "$(app fake/echo "$(variable FAKE_START_DELAY 1h)" Single)"
until_is containerApps/waiting .properties.latestRevisionName waiting--0000001
# jobs, with executions that have succeeded, failed, were stopped, and run.
call PUT jobs/good "$(job fake/done "" "$manual")"
call POST jobs/good/start
until_is jobs/good/executions '.value[0].properties.status' Succeeded
call PUT jobs/bad "$(job fake/exit "" "$manual")"
call POST jobs/bad/start
call PUT jobs/long "$(job fake/echo "" "$manual")"
call POST jobs/long/start
until_is jobs/long/executions '.value[0].properties.status' Running
call POST jobs/long/stop
until_is jobs/long/executions '.value[0].properties.status' Stopped
call POST jobs/long/start
until_is jobs/long/executions '.value[0].properties.status' Running
call PUT jobs/nightly "$(job fake/done "" '"triggerType":"Schedule","scheduleTriggerConfig":{"cronExpression":"0 3 * * *","parallelism":1,"replicaCompletionCount":1}')"
until_is jobs/nightly .properties.provisioningState Succeeded
call POST jobs/nightly/suspend
until_is jobs/bad/executions '.value[0].properties.status' Failed
# A deletion that waits for a replica which ignores SIGTERM.
call PUT containerApps/going "$(app fake/deaf "" Single ',"terminationGracePeriodSeconds":600')"
until_is containerApps/going .properties.provisioningState Succeeded
call DELETE containerApps/going
until_is containerApps/going .properties.provisioningState Deleting
kill -9 $server
wait $server 2>/dev/null || true
for _ in $(seq 50); do curl -sk -o "$work/out" "https://$arm/" || break; sleep 0.2; done # the roles end with their supervisor

echo '-- Made by format1.sh from a database of format 1.'
echo 'PRAGMA application_id = 1349415787;'
echo 'PRAGMA user_version = 1;'
sqlite3 "$work/data/penstock.db" .dump
