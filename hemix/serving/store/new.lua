-- What of a user's history has arrived since a revision; keys are laid out in append.lua.
-- ARGV: prefix, user, revision, how many events the caller reads at most.
-- Returns the revision ('0': no such user) and how many events there are; then the new ones by time, each as it is kept, unless all are
-- new or they are as many as the caller reads.

local revision = redis.call('HGET', ARGV[1] .. 'users:' .. ARGV[2], 'revision')
if not revision or tonumber(revision) == tonumber(ARGV[3]) then
  return {revision or '0', 0}
end
local events = redis.call('ZRANGE', ARGV[1] .. 'history:' .. ARGV[2], 0, -1)
local known, found = string.format('%016.0f', tonumber(ARGV[3])), {revision, #events}
for _, event in ipairs(events) do
  if string.sub(event, 1, 16) > known then
    found[#found + 1] = event
  end
end
if #found - 2 >= math.min(#events, tonumber(ARGV[4])) then
  return {revision, #events}
end
return found
