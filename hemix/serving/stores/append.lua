-- Stores a body of events atomically, all or none. The server's clock makes the revision.
-- ARGV: prefix; history cap; time to live (ms) of a user and of an item ('' for never); number of
--   dropped ids to remember of a user and of an item; maximum columns of either; then six for each
--   event:
--   owner's kind (user, item), owner, id, time in ms, history entry ('' where it enters none),
--   features as JSON: a list of pairs [column, value as JSON text] ('' where it has none).
-- Returns 1 (accepted) or 0 (duplicate) for each event, and then the revision.
-- Keys, each after the prefix:
--   revision                 the newest
--   users:NAME               hash: revision, columns_revision, columns
--   history:NAME             sorted set by time: revision (16 digits), position in the body
--                            (6 digits), history entry: [id, ...]
--   ids:KIND:NAME            sorted set of ids: inf while the event is in the history, else the
--                            revision that dropped it
--   item:NAME                revision (16 digits), columns
-- Columns are JSON: {column: [time as text, value as JSON text]}; cjson would round numbers.

local prefix, cap = ARGV[1], tonumber(ARGV[2])
local ttl = {user = ARGV[3], item = ARGV[4]}
local duplicate_window = {user = tonumber(ARGV[5]), item = tonumber(ARGV[6])}
local max_columns = tonumber(ARGV[7])
local key_prefixes = {user = {'users:', 'history:', 'ids:user:'}, item = {'item:', 'ids:item:'}}
local clock = redis.call('TIME')
local last = tonumber(redis.call('GET', prefix .. 'revision') or '0')
local revision = string.format('%016.0f', math.max(last + 1, clock[1] * 1000000 + clock[2]))
redis.call('SET', prefix .. 'revision', revision)

local changed_histories = {}

local function bytes_less(a, b) -- independent of the server's locale
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function drop_oldest_columns(columns)
  local names = {}
  for name in pairs(columns) do
    names[#names + 1] = name
  end
  if #names <= max_columns then
    return
  end
  table.sort(names, function(a, b)
    local x, y = tonumber(columns[a][1]), tonumber(columns[b][1])
    if x ~= y then
      return x < y
    end
    return bytes_less(a, b)
  end)
  for i = 1, #names - max_columns do
    columns[names[i]] = nil
  end
end

local function set_columns(stored, time, features)
  local columns = stored and cjson.decode(stored) or {}
  for _, pair in ipairs(features) do
    local old = columns[pair[1]]
    if not old or tonumber(old[1]) <= tonumber(time) then
      columns[pair[1]] = {time, pair[2]}
    end
  end
  drop_oldest_columns(columns)
  return cjson.encode(columns)
end

local function append_event(kind, owner, id, time, entry, features, position)
  local ids = prefix .. 'ids:' .. kind .. ':' .. owner
  if redis.call('ZADD', ids, 'NX', entry ~= '' and 'inf' or revision, id) == 0 then
    return 0
  end
  if entry ~= '' then
    local member = revision .. string.format('%06d', position) .. entry
    redis.call('ZADD', prefix .. 'history:' .. owner, time, member)
    changed_histories[owner] = true
  elseif features ~= '' then
    local pairs_of = cjson.decode(features)
    if kind == 'item' then
      local item = prefix .. 'item:' .. owner
      local stored = redis.call('GET', item)
      local columns = set_columns(stored and string.sub(stored, 17), time, pairs_of)
      redis.call('SET', item, revision .. columns)
    else
      local user = prefix .. 'users:' .. owner
      local columns = set_columns(redis.call('HGET', user, 'columns'), time, pairs_of)
      redis.call('HSET', user, 'columns_revision', revision, 'columns', columns)
    end
  end
  return 1
end

local function apply_limits(kind, owner)
  local ids, history = prefix .. 'ids:' .. kind .. ':' .. owner, prefix .. 'history:' .. owner
  if kind == 'user' and changed_histories[owner] then
    redis.call('HSET', prefix .. 'users:' .. owner, 'revision', revision)
    local excess = redis.call('ZCARD', history) - cap
    if excess > 0 then
      local oldest = redis.call('ZPOPMIN', history, excess)
      for i = 1, #oldest, 2 do
        redis.call('ZADD', ids, 'XX', revision, cjson.decode(string.sub(oldest[i], 23))[1])
      end
    end
  end
  local excess_ids = redis.call('ZCOUNT', ids, '-inf', '(inf') - duplicate_window[kind]
  if excess_ids > 0 then
    redis.call('ZREMRANGEBYRANK', ids, 0, excess_ids - 1)
  end
  for _, key in ipairs(key_prefixes[kind]) do
    if ttl[kind] ~= '' then
      redis.call('PEXPIRE', prefix .. key .. owner, ttl[kind])
    else
      redis.call('PERSIST', prefix .. key .. owner)
    end
  end
end

local accepted, changed_owners, seen = {}, {}, {}
for i = 8, #ARGV, 6 do
  local kind, owner = ARGV[i], ARGV[i + 1]
  local position = (i - 8) / 6
  accepted[position + 1] =
    append_event(kind, owner, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], position)
  if accepted[position + 1] == 1 and not seen[kind .. owner] then
    seen[kind .. owner] = true
    changed_owners[#changed_owners + 1] = {kind, owner}
  end
end
for _, owner in ipairs(changed_owners) do
  apply_limits(owner[1], owner[2])
end
accepted[#accepted + 1] = revision
return accepted
