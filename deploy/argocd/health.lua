-- Argo CD's health check for ManagedSecrets: what kstatus says, in Argo CD's words.
-- It reads nothing but status, and status never holds a value.
local health = { status = "Progressing", message = "Waiting for the operator" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end

local ready, reconciling, stalled
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    ready = condition
  elseif condition.type == "Reconciling" and condition.status == "True" then
    reconciling = condition
  elseif condition.type == "Stalled" and condition.status == "True" then
    stalled = condition
  end
end

local function say(condition)
  health.message = condition.reason .. ": " .. condition.message
end

-- Conditions of an earlier spec say nothing about this one.
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the latest change"
elseif reconciling ~= nil then
  say(reconciling)
elseif stalled ~= nil then
  health.status = "Degraded"
  say(stalled)
elseif ready ~= nil then
  say(ready)
  if ready.status == "True" then
    health.status = "Healthy"
  end
end
return health
