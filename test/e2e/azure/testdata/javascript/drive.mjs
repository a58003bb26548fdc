// Drives environment, app, revisions, traffic, secrets, job and deletion with Azure's SDK, and prints each step.
import assert from "node:assert/strict";
import { ContainerAppsAPIClient } from "@azure/arm-appcontainers";

const [endpoint, token, subscription] = process.argv.slice(2);
const credential = { getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 3600_000 }) };
const client = new ContainerAppsAPIClient(credential, subscription, { endpoint });
const group = "js", location = "koreacentral", poll = { updateIntervalInMs: 100 };
const step = (text) => console.log(text);

const environment = await client.managedEnvironments.beginCreateOrUpdateAndWait(group, "e", { location, tags: { team: "ml" } }, poll);
assert.equal(environment.provisioningState, "Succeeded");
assert.deepEqual(environment.tags, { team: "ml" });
step("environment");

const app = (suffix) => ({
  location,
  environmentId: environment.id,
  configuration: {
    activeRevisionsMode: "Multiple",
    secrets: [{ name: "key", value: "secret-of-" + suffix }],
    ingress: { external: true, targetPort: 8080, transport: "auto", traffic: [{ latestRevision: true, weight: 100 }] },
  },
  template: {
    revisionSuffix: suffix,
    containers: [{ name: "chat", image: "fake/echo", env: [{ name: "KEY", secretRef: "key" }], resources: { cpu: 0.5, memory: "1Gi" } }],
    scale: { minReplicas: 0, maxReplicas: 3, rules: [{ name: "users", http: { metadata: { concurrentRequests: "10" } } }] },
  },
});
await client.containerApps.beginCreateOrUpdateAndWait(group, "chat", app("one"), poll);
let chat = await client.containerApps.beginCreateOrUpdateAndWait(group, "chat", app("two"), poll);
assert.equal(chat.provisioningState, "Succeeded");
assert.equal(chat.latestReadyRevisionName, "chat--two");
assert.equal(chat.template.scale.minReplicas, 0);
step("app");

const all = async (pages) => { const list = []; for await (const item of pages) list.push(item); return list; };
const revisions = async () => (await all(client.containerAppsRevisions.listRevisions(group, "chat"))).map((r) => `${r.name} ${r.active}`).sort();
assert.deepEqual(await revisions(), ["chat--one true", "chat--two true"]);
await client.containerAppsRevisions.deactivateRevision(group, "chat", "chat--one");
assert.deepEqual(await revisions(), ["chat--one false", "chat--two true"]);
await client.containerAppsRevisions.activateRevision(group, "chat", "chat--one");
await client.containerAppsRevisions.restartRevision(group, "chat", "chat--two");
assert.equal((await client.containerAppsRevisions.getRevision(group, "chat", "chat--one")).active, true);
step("revisions");

chat.configuration.ingress.traffic = [{ revisionName: "chat--one", weight: 20, label: "old" }, { latestRevision: true, weight: 80 }];
await client.containerApps.beginUpdateAndWait(group, "chat", { location, configuration: { ingress: chat.configuration.ingress } }, poll);
chat = await client.containerApps.get(group, "chat");
assert.deepEqual(chat.configuration.ingress.traffic.map((t) => t.weight), [20, 80]);
assert.equal((await client.containerAppsRevisions.getRevision(group, "chat", "chat--one")).trafficWeight, 20);
step("traffic");

assert.deepEqual((await client.containerApps.listSecrets(group, "chat")).value.map((s) => [s.name, s.value]), [["key", "secret-of-two"]]);
step("secrets");

// What was read can be written: nothing changes.
const again = await client.containerApps.beginCreateOrUpdateAndWait(group, "chat", chat, poll);
assert.deepEqual(again.template, chat.template);
assert.deepEqual(again.configuration, chat.configuration);
assert.equal((await revisions()).length, 2);
step("read and written back");

const job = await client.jobs.beginCreateOrUpdateAndWait(group, "batch", {
  location,
  environmentId: environment.id,
  configuration: { triggerType: "Manual", replicaTimeout: 60, manualTriggerConfig: { parallelism: 1, replicaCompletionCount: 1 } },
  template: { containers: [{ name: "work", image: "fake/done" }] },
}, poll);
assert.equal(job.provisioningState, "Succeeded");
const execution = await client.jobs.beginStartAndWait(group, "batch", poll);
let status = "";
for (const end = Date.now() + 60_000; status !== "Succeeded" && Date.now() < end; await new Promise((done) => setTimeout(done, 100))) {
  status = (await all(client.jobsExecutions.list(group, "batch"))).find((e) => e.name === execution.name)?.status;
}
assert.equal(status, "Succeeded");
step("job");

// Azure's errors arrive as such.
await assert.rejects(client.managedEnvironments.beginDeleteAndWait(group, "e", poll), (e) => e.statusCode === 409 && e.code === "ManagedEnvironmentHasContainerApps");
await client.jobs.beginDeleteAndWait(group, "batch", poll);
await client.containerApps.beginDeleteAndWait(group, "chat", poll);
await assert.rejects(client.containerApps.get(group, "chat"), (e) => e.statusCode === 404 && e.code === "ResourceNotFound");
await client.managedEnvironments.beginDeleteAndWait(group, "e", poll);
assert.deepEqual(await all(client.managedEnvironments.listByResourceGroup(group)), []);
step("deleted");
