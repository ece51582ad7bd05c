-- Events of the game with readable columns. The only place that knows how the tracker packs them.
with events as (

    select
        *,
        coalesce(os_timezone, geo_timezone) as time_zone
    from {{ source('traitmesh', 'events') }}
    {% if var('as_of') %}
    where time <= {{ as_of() }}
    {% endif %}

)

select
    events.event_id,
    events.user_id,
    events.name,
    events.time as occurred_at,
    cast(events.time as date) as day,
    extract(
        hour from {{ dbt.dateadd('minute', 'coalesce(zones.utc_offset_minutes, 0)', 'events.time') }}
    ) as local_hour,
    events.geo_country as country,
    events.se_label as label,
    events.se_value as value,
    {{ context_field('com_tusk_player_context_1', 'level', 'integer') }} as level,
    {{ context_field('com_tusk_player_context_1', 'tier', 'integer') }} as tier,
    lower({{ context_field('com_snowplowanalytics_snowplow_mobile_context_1', 'osType', 'varchar') }})
        as device_os
from events
left join {{ ref('time_zones') }} as zones
    on events.time_zone = zones.time_zone
