-- Reads the events of a user that have arrived since a revision. append.lua documents the keys.
-- ARGV: prefix, user, known revision, maximum events that the caller reads.
-- Returns the current revision ('0': no such user) and the number of stored events; then the new
-- entries by time, unless all entries are new or there are as many as the caller reads.

local revision = redis.call('HGET', ARGV[1] .. 'users:' .. ARGV[2], 'revision')
if not revision or tonumber(revision) == tonumber(ARGV[3]) then
  return {revision or '0', 0}
end
local entries = redis.call('ZRANGE', ARGV[1] .. 'history:' .. ARGV[2], 0, -1)
local known, result = string.format('%016.0f', tonumber(ARGV[3])), {revision, #entries}
for _, entry in ipairs(entries) do
  if string.sub(entry, 1, 16) > known then
    result[#result + 1] = entry
  end
end
if #result - 2 >= math.min(#entries, tonumber(ARGV[4])) then
  return {revision, #entries}
end
return result
