-- Takes a body of events, all or nothing and all at once. The server's clock makes the revision.
-- ARGV: prefix, cap, ttl in ms ('' for never), how many ids of a user and of an item are remembered; then six for each event:
--   owner's kind (user, item), owner, id, time in ms, what the history keeps ('' where it does not enter one),
--   features as JSON: a list of pairs [column, value as JSON text] ('' where it has none).
-- Returns 1 (accepted) or 0 (duplicate) for each event.
-- Keys, each after the prefix:
--   revision                 the newest
--   users:NAME               hash: revision, columns_revision, columns
--   history:NAME             sorted set by time: revision (16 digits), place in the body (6 digits), what is kept: [id, ...]
--   ids:KIND:NAME            sorted set of ids: inf while the event is kept, else the revision that dropped it
--   items, items:revision    hashes by item: columns, their revision
-- Columns are JSON: {column: [time as text, value as JSON text]}; a number would not survive cjson.

local prefix, cap, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local remembered = {user = tonumber(ARGV[4]), item = tonumber(ARGV[5])}
local clock = redis.call('TIME')
local last = tonumber(redis.call('GET', prefix .. 'revision') or '0')
local revision = string.format('%016.0f', math.max(last + 1, clock[1] * 1000000 + clock[2]))
redis.call('SET', prefix .. 'revision', revision)

local moved = {}

local function set_columns(stored, time, pairs_of)
  local columns = stored and cjson.decode(stored) or {}
  for _, pair in ipairs(pairs_of) do
    local old = columns[pair[1]]
    if not old or tonumber(old[1]) <= tonumber(time) then
      columns[pair[1]] = {time, pair[2]}
    end
  end
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
      redis.call('HSET', prefix .. 'items', owner, set_columns(redis.call('HGET', prefix .. 'items', owner), time, pairs_of))
      redis.call('HSET', prefix .. 'items:revision', owner, revision)
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
  for _, key in ipairs(kind == 'user' and {'users:', 'history:', 'ids:user:'} or {}) do
    if ttl ~= '' then
      redis.call('PEXPIRE', prefix .. key .. owner, ttl)
    else
      redis.call('PERSIST', prefix .. key .. owner)
    end
  end
end

local accepted, touched, seen = {}, {}, {}
for at = 6, #ARGV, 6 do
  local kind, owner = ARGV[at], ARGV[at + 1]
  local place = (at - 6) / 6
  accepted[place + 1] = take(kind, owner, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], place)
  if not seen[kind .. owner] then
    seen[kind .. owner] = true
    touched[#touched + 1] = {kind, owner}
  end
end
for _, owner in ipairs(touched) do
  drop(owner[1], owner[2])
end
return accepted
