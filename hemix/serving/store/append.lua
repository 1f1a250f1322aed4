-- Takes a body of events, all or nothing and all at once. The server's clock makes the revision.
-- ARGV: prefix, cap, ttl in ms of a user and of an item ('' for never), how many ids of a user and of an item are remembered, how many
-- columns of either are kept; then six for each event:
--   owner's kind (user, item), owner, id, time in ms, what the history keeps ('' where it does not enter one),
--   features as JSON: a list of pairs [column, value as JSON text] ('' where it has none).
-- Returns 1 (accepted) or 0 (duplicate) for each event, and then the revision.
-- Keys, each after the prefix:
--   revision                 the newest
--   users:NAME               hash: revision, columns_revision, columns
--   history:NAME             sorted set by time: revision (16 digits), place in the body (6 digits), what is kept: [id, ...]
--   ids:KIND:NAME            sorted set of ids: inf while the event is kept, else the revision that dropped it
--   item:NAME                revision (16 digits), columns
-- Columns are JSON: {column: [time as text, value as JSON text]}; a number would not survive cjson.

local prefix, cap = ARGV[1], tonumber(ARGV[2])
local ttl = {user = ARGV[3], item = ARGV[4]}
local remembered = {user = tonumber(ARGV[5]), item = tonumber(ARGV[6])}
local most_columns = tonumber(ARGV[7])
local keys_of = {user = {'users:', 'history:', 'ids:user:'}, item = {'item:', 'ids:item:'}}
local clock = redis.call('TIME')
local last = tonumber(redis.call('GET', prefix .. 'revision') or '0')
local revision = string.format('%016.0f', math.max(last + 1, clock[1] * 1000000 + clock[2]))
redis.call('SET', prefix .. 'revision', revision)

local moved = {}

local function before(a, b) -- by bytes, whatever the server's locale
  for at = 1, math.min(#a, #b) do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function drop_oldest(columns)
  local names = {}
  for name in pairs(columns) do
    names[#names + 1] = name
  end
  if #names <= most_columns then
    return
  end
  table.sort(names, function(a, b)
    local x, y = tonumber(columns[a][1]), tonumber(columns[b][1])
    if x ~= y then
      return x < y
    end
    return before(a, b)
  end)
  for at = 1, #names - most_columns do
    columns[names[at]] = nil
  end
end

local function set_columns(stored, time, pairs_of)
  local columns = stored and cjson.decode(stored) or {}
  for _, pair in ipairs(pairs_of) do
    local old = columns[pair[1]]
    if not old or tonumber(old[1]) <= tonumber(time) then
      columns[pair[1]] = {time, pair[2]}
    end
  end
  drop_oldest(columns)
  return cjson.encode(columns)
end

local function take(kind, owner, id, time, kept, features, place)
  local ids = prefix .. 'ids:' .. kind .. ':' .. owner
  if redis.call('ZADD', ids, 'NX', kept ~= '' and 'inf' or revision, id) == 0 then
    return 0
  end
  if kept ~= '' then
    redis.call('ZADD', prefix .. 'history:' .. owner, time, revision .. string.format('%06d', place) .. kept)
    moved[owner] = true
  elseif features ~= '' then
    local pairs_of = cjson.decode(features)
    if kind == 'item' then
      local item = prefix .. 'item:' .. owner
      local stored = redis.call('GET', item)
      redis.call('SET', item, revision .. set_columns(stored and string.sub(stored, 17), time, pairs_of))
    else
      local user = prefix .. 'users:' .. owner
      redis.call('HSET', user, 'columns_revision', revision, 'columns', set_columns(redis.call('HGET', user, 'columns'), time, pairs_of))
    end
  end
  return 1
end

local function drop(kind, owner)
  local ids, history = prefix .. 'ids:' .. kind .. ':' .. owner, prefix .. 'history:' .. owner
  if kind == 'user' and moved[owner] then
    redis.call('HSET', prefix .. 'users:' .. owner, 'revision', revision)
    local excess = redis.call('ZCARD', history) - cap
    if excess > 0 then
      local oldest = redis.call('ZPOPMIN', history, excess)
      for at = 1, #oldest, 2 do
        redis.call('ZADD', ids, 'XX', revision, cjson.decode(string.sub(oldest[at], 23))[1])
      end
    end
  end
  local beyond = redis.call('ZCOUNT', ids, '-inf', '(inf') - remembered[kind]
  if beyond > 0 then
    redis.call('ZREMRANGEBYRANK', ids, 0, beyond - 1)
  end
  for _, key in ipairs(keys_of[kind]) do
    if ttl[kind] ~= '' then
      redis.call('PEXPIRE', prefix .. key .. owner, ttl[kind])
    else
      redis.call('PERSIST', prefix .. key .. owner)
    end
  end
end

local accepted, touched, seen = {}, {}, {}
for at = 8, #ARGV, 6 do
  local kind, owner = ARGV[at], ARGV[at + 1]
  local place = (at - 8) / 6
  accepted[place + 1] = take(kind, owner, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], place)
  if accepted[place + 1] == 1 and not seen[kind .. owner] then
    seen[kind .. owner] = true
    touched[#touched + 1] = {kind, owner}
  end
end
for _, owner in ipairs(touched) do
  drop(owner[1], owner[2])
end
accepted[#accepted + 1] = revision
return accepted
